"""imgfs next to other programs that write, read and unpack images."""
