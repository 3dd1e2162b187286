# A log goes on with the history of another directory: that is said.
mkdir one two
echo 1 >one/a
echo 2 >two/b
status qallow accelerator --watch one --log w.tlog --once --clock logical --quiet
status qallow accelerator --watch one --log w.tlog --once --clock logical
status qallow accelerator --watch two --log w.tlog --once --clock logical
