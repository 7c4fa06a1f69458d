package cli

import (
	"fmt"
)

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is the long help text.
func (completionCommand) Help() string {
	return `Prints a script for the shell, which then completes commands, flags, the names of sandboxes, paths in them and
the ids of their processes:

  bash   echo 'source <(tongs completion bash)' >> ~/.bashrc
  zsh    echo 'source <(tongs completion zsh)' >> ~/.zshrc       (after compinit)
  fish   tongs completion fish > ~/.config/fish/completions/tongs.fish

EXIT STATUS
  0  it is printed
  2  there is none for that shell`
}

// Run prints the script. Each asks `tongs __complete` with the words up to the cursor, and gets a line
// for each possibility, its description after a tab. The line ":files" asks for names of files.
func (c *completionCommand) Run(s *streams) error {
	_, err := fmt.Fprint(s.stdout, completionScripts[c.Shell])
	return err
}

var completionScripts = map[string]string{
	// Bash cuts words at colons, so that the line is cut here once more, and what stands before the
	// last colon is taken off the answers.
	"bash": `# completion of tongs for bash
_tongs() {
  local line=${COMP_LINE:0:COMP_POINT} word answer files= IFS=$' \t\n'
  local -a words
  read -ra words <<<"$line"
  [[ $line == *[[:blank:]] ]] && words+=("")
  local current=${words[${#words[@]}-1]} cut=
  if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then cut=${current%"${current##*:}"}; fi
  COMPREPLY=()
  while IFS= read -r answer; do
    word=${answer%%$'\t'*}
    if [[ $word == :files ]]; then files=1; continue; fi
    COMPREPLY+=("${word#"$cut"}")
  done < <("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null)
  if [[ -n $files ]]; then
    while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -f -- "${current##*:}")
    compopt -o filenames 2>/dev/null
  fi
  if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[/:] ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -F _tongs tongs
`,
	"zsh": `#compdef tongs
# completion of tongs for zsh
_tongs() {
  local answer word about files=
  local -a plain open
  while IFS= read -r answer; do
    word=${answer%%$'\t'*}; about=
    [[ $answer == *$'\t'* ]] && about=${answer#*$'\t'}
    if [[ $word == :files ]]; then files=1
    elif [[ $word == *[/:] ]]; then open+=("$word")
    else plain+=("${word//:/\\:}${about:+:$about}"); fi
  done < <("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
  (( $#plain )) && _describe tongs plain
  (( $#open )) && compadd -S '' -- $open
  [[ -n $files ]] && _files
  return 0
}
(( $+functions[compdef] )) && compdef _tongs tongs
`,
	"fish": `# completion of tongs for fish
function __tongs_complete
  set -l words (commandline -opc) (commandline -ct)
  $words[1] __complete -- $words[2..] 2>/dev/null | while read -l line
    if test "$line" = ":files"
      __fish_complete_path (commandline -ct)
    else
      echo $line
    end
  end
end
complete -c tongs -f -a '(__tongs_complete)'
`,
}
