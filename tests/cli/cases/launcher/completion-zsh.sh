need zsh
qallow completion zsh >_qallow
zsh -n _qallow
# It registers itself when sourced.
zsh -fc 'autoload -U compinit; compinit -D -u; source ./_qallow; print $_comps[qallow]'
