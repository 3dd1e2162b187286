qallow --version
qallow -V
qallow version
qallow --version --json
qallow version --json
