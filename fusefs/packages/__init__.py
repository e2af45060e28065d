"""The packages that are installed in a root file system, from the databases of dpkg, apk and rpm."""
