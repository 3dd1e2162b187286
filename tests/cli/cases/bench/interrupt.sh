# A signal ends it in order: the scratch directory goes.
mkdir scratch
qallow bench --tier smoke --runs 500 --filter commit/durable --dir scratch &
bench=$!
until_true compgen -G 'scratch/qallow-bench-*/case/store.tlog' >/dev/null
kill -TERM $bench
status wait $bench
ls -A scratch
