"""How two images differ: their files, texts, configuration and packages."""
