# A log that belongs to a program which is no recorder: nobody can be asked.
need python3
. "$CASES/history.bash"
history_of_three
cp -a tree before
cat >locked.py <<'PYTHON'
import fcntl, subprocess, sys
with open("work.tlog.lock", "r+") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    sys.exit(subprocess.run(sys.argv[1:]).returncode)
PYTHON
status python3 locked.py "$QALLOW" replay work.tlog --in-place tree -e 1 2>said
sed 's/process [0-9]*/process PID/' said
diff <(tree_of tree) <(tree_of before)
qallow replay work.tlog --in-place tree -e 1 --quiet
