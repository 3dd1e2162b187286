# An option that has no meaning beside what is asked for is refused, not ignored: 64.
mkdir work
try() { status qallow accelerator "$@" 2>&1 | grep -v '^example:'; }
request=(--get --cat --sync --status --stop '--since 3' '--wait 3' '--export out' '--label x')
keeper=('--threads 4' '--settle 5ms' '--max-settle 5ms' --content '--run true' --no-log --no-cache
    --once --poll --no-poll --no-watch '--sweep 1s' '--hash xxh3' '--shm-size 1M' '--exclude x'
    --no-ignore-files --include-git '--max-file-size 1K' '--keep-time 1h' '--keep-bytes 1M'
    --sync=none '--compress 1' '--telemetry t' '--prometheus p' '--telemetry-interval 1s'
    --verbose '--max-memory 1M' '--cpu-mask scalar'
    '--uuid 00000000000000000000000000000000' '--clock real')
# every option of a keeper beside one request, and some of them beside every request
for option in "${keeper[@]}"; do
    # shellcheck disable=SC2086 # words are meant to be split
    try --watch work --since 3 $option
done
for option in "${request[@]}"; do
    path=$([[ $option != --[gc]*t ]] || echo x)
    log=$([ "$option" != '--label x' ] || echo --log work.tlog)
    # shellcheck disable=SC2086 # words are meant to be split
    try $option $path $log --threads 4
done
echo -- the other way round
try --watch work --timeout 5s
try --watch work --status --timeout 5s
try --watch work --stop --timeout 5s
try --watch work --get x --timeout 5s
try --log work.tlog --get x
try --log work.tlog --since 3
try --log work.tlog --wait 3
try --log work.tlog --export out
echo -- two requests
for first in "${!request[@]}"; do
    for second in "${request[@]:first+1}"; do
        path=$([[ ${request[first]} != --[gc]*t ]] || echo x)
        # shellcheck disable=SC2086 # words are meant to be split
        try ${request[first]} $second $path
        # shellcheck disable=SC2086 # words are meant to be split
        try --watch work ${request[first]} $second $path
    done
done
ls
