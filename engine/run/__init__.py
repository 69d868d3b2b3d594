"""One run of one job: the only package that moves a batch. Begin with `pipeline`."""
