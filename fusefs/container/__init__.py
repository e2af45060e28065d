"""A throwaway container: namespaces, a writable root file system over an image's, and one command in it.

Three processes: this one, which has the mount of the image in a mount namespace of its own; the first process of a
PID namespace, which makes the root file system in a second mount namespace; and the command.  All mounts end with
the namespaces, and so with the processes.
"""
