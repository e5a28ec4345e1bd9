#!/bin/sh
# alert.sh WHAT [EXIT_CODE]: says in one line that a scheduled command was given up. The line goes to standard error (the journal, the task's log)
# and, where TWOFOLD_ALERT_COMMAND is set, to that command's standard input. systemd passes the exit code as MONITOR_EXIT_STATUS.
set -eu

what=${1:?usage: alert.sh WHAT [EXIT_CODE]}
code=${2:-${MONITOR_EXIT_STATUS:-unknown}}
reason=

case $what in
  *audit*) job=audit refused="found records that were served wrong" failed="failed and is not tried again, the next one judges its records too" ;;
  *) job=batch refused="was refused, the snapshot before it serves" failed="failed and is not tried again, the snapshot before it serves" ;;
esac
log=${TWOFOLD_HOME:-.twofold}/logs/$job.log

case $code in
  3)
    said=$refused
    # What ends so always leaves its one line in the log; nothing else may be taken for this run's.
    reason=$(grep -a "^$job: " "$log" 2>/dev/null | tail -n 1 | cut -c 8-600) || reason=
    ;;
  2) said="was called wrongly, nothing was done" ;;
  *) said=$failed ;;
esac

line="twofold: $what $said (exit $code, log $log)${reason:+: $reason}"
printf '%s\n' "$line" >&2
if [ -n "${TWOFOLD_ALERT_COMMAND:-}" ]; then
  printf '%s\n' "$line" | sh -c "$TWOFOLD_ALERT_COMMAND"
fi
