# A log goes on with the history of another directory: that is said.
mkdir one two
echo 1 >one/a
echo 2 >two/b
touch -d 2026-01-01 one # or in one tick of the clock both might get one time
status qallow accelerator --watch one --log w.tlog --once --clock logical --quiet
status qallow accelerator --watch one --log w.tlog --once --clock logical
status qallow accelerator --watch two --log w.tlog --once --clock logical
