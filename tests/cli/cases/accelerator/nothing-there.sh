# What does not exist, or is something else; no log is left behind by the attempt.
echo 1 >file
mkdir directory
status qallow accelerator --quiet --watch nothing --log x.tlog
status qallow accelerator --quiet --watch nothing
status qallow accelerator --quiet --watch file --log x.tlog --once
status qallow accelerator --quiet --file directory --log x.tlog --once
ls
echo "not a log" >x.tlog
status qallow accelerator --quiet --watch directory --log x.tlog --once
cat x.tlog
