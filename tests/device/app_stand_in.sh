#!/bin/sh
# Stand-in for Android's programs and for the app on the emulated phone, for tests: one script under the names am, pm,
# cmd, run-as, dumpsys, getprop, settings and logcat, and, as the app's process, org.phonefit.demo. It reads the same
# jobs as the app and writes the same results; what runs the models are the native runners. It is no phone: its device
# is called a stand-in, memory is the runner's resident size, and there is no battery's gauge.
# $state/fault holds what is to go wrong: kill, out_of_memory, or a code INSTALL_FAILED_….
app=org.phonefit.demo
state=/data/app-stand-in
runners=/data/local/tmp/phonefit-runners/aarch64/bin
fault=$(cat $state/fault 2> /dev/null)
tab=$(printf '\t')

# Every value of a JSON text as a line: its path, a tab, the value; strings without escapes.
flat() {
  tr -d '\n' < "$1" | awk '
    function skip() { while (substr(text, at, 1) ~ /[ \t]/) at++; return substr(text, at, 1) }
    function word(   from) {
      if (skip() == "\"") { from = ++at; while (substr(text, at, 1) != "\"") at++; return substr(text, from, at++ - from) }
      from = at; while (substr(text, at, 1) ~ /[-+.0-9a-zE]/) at++; return substr(text, from, at - from)
    }
    function walk(path,   key, count) {
      if (skip() == "{") {
        at++
        while (skip() != "}") { if (skip() == ",") at++; key = word(); skip(); at++; walk(path key ".") }
        at++
      } else if (skip() == "[") {
        at++
        for (count = 0; skip() != "]"; count++) { if (skip() == ",") at++; walk(path count ".") }
        at++
      } else print substr(path, 1, length(path) - 1) "\t" word()
    }
    { text = $0; at = 1; walk("") }'
}

job() { sed -n "s/^$1$tab//p" $state/job; }
found() { sed -n "s/.*\"$1\": \(\[[^]]*\]\|[0-9]*\).*/\1/p" $state/found; }
asset() { unzip -p $state/base.apk assets/phonefit_runtimes.json | tr -d '\n' | sed -n "$1"; }

# write STATUS [FIELDS]: the result as a whole or not at all
write() {
  result=$state/data/files/results/$id.json
  cat > $result.tmp <<END
{"schema_number": 1, "job_id": "$id", "status": "$1",
 "app_version": "stand-in $(asset 's/.*"app_version": *"\([^"]*\)".*/\1/p')",
 "runtimes": $(asset 's/.*"runtimes": *\({[^}]*}\).*/\1/p'),
 "device": {"manufacturer": "phonefit", "model": "STAND-IN", "soc": "", "abi": "arm64-v8a", "sdk": 29,
  "android_version": "10", "fingerprint": "", "cores": 1, "ram_bytes": 1}${2:+, $2}}
END
  mv $result.tmp $result
}

refuse() {
  write error "\"error\": {\"kind\": \"$1\", \"message\": \"$2\"}"
  exit
}

numbers() {
  case $2 in float32) form=f4 ;; float64) form=f8 ;; uint8) form=u1 ;; int8) form=d1 ;; int32) form=d4 ;; *) form=d8 ;; esac
  od -An -v -t $form "$1" | tr -s ' ' '\n' | sed '/^$/d'
}

# busybox's awk has no sqrt(): root() is Newton's
# difference of each output as a share of its range, cosine, whether it is within its tolerance
compare() {
  index=0
  while wanted=$(job "expected.$index.path") && [ -n "$wanted" ]; do
    kind=$(job "expected.$index.dtype")
    numbers "$wanted" "$kind" > $state/wanted
    numbers $state/output_$index "$kind" | paste - $state/wanted | awk -v tolerance="$(job "expected.$index.tolerance")" '
      function root(x,   r, n) { r = x; for (n = 0; n < 60; n++) r = (r + x / r) / 2; return r }
      NR == 1 { low = high = $2 }
      { off = $1 - $2; if (off < 0) off = -off; if (off > most || NR == 1) most = off
        if ($2 < low) low = $2; if ($2 > high) high = $2; dot += $1 * $2; a += $1 * $1; b += $2 * $2 }
      END { if (high > low) most /= high - low; print most, (a * b > 0 ? dot / root(a * b) : a == b), most <= tolerance + 0 }'
    index=$((index + 1))
  done | awk '
    NR == 1 || $1 > most { most = $1 } NR == 1 || $2 < cosine { cosine = $2 } { passed += $3 }
    END { if (NR) printf "{\"max_difference\": %.9g, \"cosine\": %.9g, \"passed\": %s}", most, cosine, passed == NR ? "true" : "false"
          else print "null" }'
}

run_job() {
  mkdir -p $state/data/files/results
  flat "$1" > $state/job
  id=$(job id)
  echo "job $id" >> $state/log
  if grep -q '"running"' $state/data/files/results/$id.json 2> /dev/null; then
    [ "$fault" = out_of_memory ] && write out_of_memory || refuse crash "the process of this job ended"
    exit
  fi
  write running
  [ "$(job schema_number)" = 1 ] || refuse job "schema $(job schema_number)"
  if [ "$fault" = kill ] || [ "$fault" = out_of_memory ]; then
    kill -9 $$
  fi
  model=$(job model)
  [ -r "$model" ] || refuse file "$model is not there"
  [ "$(sha256sum < "$model")" = "$(job sha256)  -" ] || refuse digest "$model is another file"
  set -- --model "$model" --result $state/found --threads "$(job threads)" --warmups "$(job warmups)" \
    --repeats "$(job repeats)" --reference "$(job reference)"
  [ "$(job seconds)" = null ] || set -- "$@" --seconds "$(job seconds)"
  index=0
  while file=$(job "inputs.$index.path") && [ -n "$file" ]; do
    [ "$(sha256sum < "$file")" = "$(job "inputs.$index.sha256")  -" ] || refuse digest "$file is another file"
    set -- "$@" --input "$file"
    index=$((index + 1))
  done
  index=0
  while [ -n "$(job "expected.$index.path")" ]; do
    set -- "$@" --output $state/output_$index
    index=$((index + 1))
  done
  said=$($runners/phonefit_"$(job runtime)" "$@" 2>&1)
  case $? in
    0) ;;
    2) refuse model "$(echo "$said" | tail -n 1 | tr -d '"\\')" ;;
    3) refuse inference "$(echo "$said" | tail -n 1 | tr -d '"\\')" ;;
    *) refuse crash "the native runner was ended" ;;
  esac
  peak=$(found peak_bytes)
  write ok "\"load_ns\": $(found load_ns), \"warmup_ns\": $(found warmup_ns), \"sample_ns\": $(found sample_ns),
 \"reference_before_ns\": $(found reference_before_ns), \"reference_after_ns\": $(found reference_after_ns),
 \"timed_from_ns\": $(found timed_from_ns), \"timed_until_ns\": $(found timed_until_ns),
 \"memory\": {\"before_load_bytes\": $(found baseline_bytes), \"after_load_bytes\": $peak, \"peak_bytes\": $peak},
 \"correctness\": $(compare)"
}

# with the runner, which is of its process group
stop() { for pid in $(pidof $app); do kill -9 -"$pid"; done; }

start() {
  activity= job=
  while [ $# -gt 0 ]; do
    case $1 in -S) stop ;; -n) activity=$2; shift ;; job) job=$2; shift ;; esac
    shift
  done
  if [ ! -e $state/base.apk ]; then
    echo "Error type 3"
    echo "Error: Activity class {$activity} does not exist."
    return
  fi
  if [ "${activity#*/}" = .BenchmarkActivity ]; then
    ln -sf "$(readlink -f "$0")" $state/$app
    setsid $state/$app "$job" < /dev/null > /dev/null 2>&1 &
  fi
  printf 'Status: ok\nLaunchState: COLD\nActivity: %s\nTotalTime: 1\nWaitTime: 1\nComplete\n' "$activity"
}

install() {
  for file; do :; done
  case $fault in INSTALL_*) echo "Failure [$fault]"; return 1 ;; esac
  [ "$(head -c 2 "$file")" = PK ] || { echo "Failure [INSTALL_PARSE_FAILED_NOT_APK]"; return 1; }
  cp "$file" $state/base.apk && mkdir -p $state/data && echo Success
}

case "${0##*/} $1" in
  "$app "*) run_job "$1" ;;
  "am start") start "$@" ;;
  "am force-stop") stop; true ;;
  "cmd package") shift; exec pm "$@" ;;
  "pm path") [ -e $state/base.apk ] && echo "package:$state/base.apk" ;;
  "pm install") install "$@" ;;
  "pm uninstall") [ -e $state/base.apk ] && rm -rf $state/base.apk $state/data && echo Success ;;
  "pm grant") [ -e $state/base.apk ] ;;
  "run-as $app") [ -e $state/base.apk ] || { echo "run-as: unknown package: $app" >&2; exit 1; }
    shift; mkdir -p $state/data; cd $state/data && exec "$@" ;;
  "dumpsys battery") printf 'Current Battery Service state:\n  USB powered: true\n  status: 2\n  level: 90\n  scale: 100\n' ;;
  "dumpsys thermalservice") printf 'IsStatusOverride: false\nThermal Status: 0\n' ;;
  "settings "*) echo null ;;
  "logcat "*) sed "s/^/01-01 00:00:00.000     1     1 I phonefit: /" $state/log ;;
  "getprop "*) cat <<END
[ro.build.version.release]: [10]
[ro.build.version.sdk]: [29]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.cpu.abilist]: [arm64-v8a]
[ro.product.manufacturer]: [phonefit]
[ro.product.model]: [STAND-IN: native runners on the emulated phone]
END
    ;;
  *) echo "${0##*/}: not in this stand-in: $*" >&2; exit 255 ;;
esac
