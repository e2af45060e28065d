"""Trees of files and directories, independent of FUSE."""
