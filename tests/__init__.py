"""Tests of imgfs.  Inputs come from `builders`, real engines from `engines`, mounts from `mounts`."""
