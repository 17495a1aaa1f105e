"""The graph of jobs as data: where files lie, which jobs there are, and the engines that run them."""
