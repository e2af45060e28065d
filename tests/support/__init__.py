"""What tests are made of: images, mounts, engines, terminals, and requirements of the machine."""
