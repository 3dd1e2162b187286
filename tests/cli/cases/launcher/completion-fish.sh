need fish
qallow completion fish >script.fish
fish --no-config -n script.fish
fish --no-config -c '
source script.fish
complete -C "qallow versi"
complete -C "qallow completion "'
