status qallow --versoin
status qallow -x
status qallow help --frobnicate
status qallow version --jsn
status qallow version --no-json
status qallow version -q-
