qallow bench --help
