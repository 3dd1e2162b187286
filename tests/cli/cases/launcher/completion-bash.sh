qallow completion bash >script
bash -n script
. ./script
offer() { # WORD...: what is offered for the last word
    COMP_WORDS=("$@")
    COMP_CWORD=$(($# - 1))
    COMPREPLY=()
    _qallow
    echo "$*: ${COMPREPLY[*]}"
}
offer qallow versi
offer qallow completion ''
offer qallow completion f
offer qallow version --q
offer qallow help --m
offer qallow --no-such version --j
