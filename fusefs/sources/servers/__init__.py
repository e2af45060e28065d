"""What registries and archives at URLs have in common: servers that speak HTTP, which fail and are asked again."""
