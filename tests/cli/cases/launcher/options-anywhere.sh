# Common options may stand before the command, and `--` ends options.
qallow --json version
qallow completion --json -- bash | head -c 50
echo
status qallow version -- --json
status qallow -qh >with
status qallow help >without
cmp with without
