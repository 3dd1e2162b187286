status qallow version --json=1
status qallow version extra
status qallow completion
status qallow completion bsh
status qallow completion bash zsh
status qallow --version help
status qallow help --man --json
