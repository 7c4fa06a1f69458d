package shell

import "strings"

// reportVariable names the file for the report of one command; the names of the
// exported variables go by way of a second one, since a pipe would need another
// process.
const (
	reportVariable = "TONGS_SHELL_REPORT"
	namesSuffix    = ".names"
)

// report writes the directory and the variables. There is no single quote in it.
const report = `builtin compgen -e >|"$__tongs_report.names"; builtin mapfile -t __tongs_names <"$__tongs_report.names"
{ builtin printf D; builtin pwd; builtin printf "\0"
for __tongs_name in "${__tongs_names[@]}"; do [[ -v $__tongs_name ]] && builtin printf "V%s=%s\0" "$__tongs_name" "${!__tongs_name}"; done
builtin printf "MARK\0"; } >>"$__tongs_report"`

// startup is what bash reads before it begins with its script, because BASH_ENV
// names it. The script itself then runs exactly as it would otherwise. Only what
// bash has built in is used, by its built-in meaning: at its end a command may have
// changed PATH, functions, options, IFS or limits. What is reported, parseReport
// says.
var startup = `builtin trap -- '{ builtin trap "" XFSZ; builtin set +xveu; builtin umask 077; builtin unset -v IFS
__tongs_report='"${` + reportVariable + `@Q}"'
` + strings.Replace(report, "MARK", "E", 1) + `; } 2>/dev/null' EXIT
{ __tongs_report=$` + reportVariable + `
` + strings.Replace(report, "MARK", "B", 1) + `; } 2>/dev/null
builtin unset -v BASH_ENV ` + reportVariable + ` __tongs_report __tongs_names __tongs_name
`
