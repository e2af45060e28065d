"""Files and directories, without FUSE."""
