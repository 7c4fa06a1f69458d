package tool

import (
	"strings"
	"sync"
)

// word reads one word: literals, quotes and expansions up to a blank or an
// operator. The commands in its substitutions are read too.
func (s *scanner) word() word {
	start := s.pos
	var value strings.Builder
	expands, literal := 0, 0
loop:
	for !s.done() {
		switch c := s.src[s.pos]; c {
		case ' ', '\t', '\r', '\n', ';', '|', '&', ')':
			break loop
		case '<', '>':
			if s.peek(1) != '(' {
				break loop
			}
			s.pos += 2
			s.parens()
			expands++
		case '(':
			if s.pos == start || strings.IndexByte("?*+@!", s.src[s.pos-1]) < 0 {
				break loop
			}
			s.pos++ // an extended pattern
			depth := 1
			for ; !s.done() && depth > 0; s.pos++ {
				switch s.src[s.pos] {
				case '(':
					depth++
				case ')':
					depth--
				}
			}
			literal++
		case '\'':
			end := strings.IndexByte(s.src[s.pos+1:], '\'')
			if end < 0 {
				s.fail()
				break loop
			}
			value.WriteString(s.src[s.pos+1 : s.pos+1+end])
			s.pos += end + 2
			literal++
		case '"':
			s.doubleQuotes(&value)
			literal++
		case '`':
			from := s.pos
			s.backquotes()
			value.WriteString(s.src[from:min(s.pos, len(s.src))])
			expands++
		case '$':
			from := s.pos
			if s.peek(1) == '\'' {
				s.ansiQuotes()
				literal++
			} else {
				s.dollar()
				expands++
			}
			value.WriteString(s.src[from:min(s.pos, len(s.src))])
		case '\\':
			if s.peek(1) != '\n' && s.pos+1 < len(s.src) {
				value.WriteByte(s.src[s.pos+1])
			}
			s.pos = min(len(s.src), s.pos+2)
			literal++
		default:
			value.WriteByte(c)
			s.pos++
			literal++
		}
	}
	if s.pos == start { // an operator where a word is needed
		s.fail()
	}
	raw := s.src[start:min(s.pos, len(s.src))]
	number := strings.Trim(raw, "0123456789") == ""
	return word{raw: raw, value: value.String(), plain: !number && (literal > 0 || expands > 1)}
}

// doubleQuotes reads "…".
func (s *scanner) doubleQuotes(value *strings.Builder) {
	s.pos++
	for !s.done() {
		from := s.pos
		switch c := s.src[s.pos]; c {
		case '"':
			s.pos++
			return
		case '\\':
			if strings.IndexByte("\"\\$`", s.peek(1)) < 0 {
				value.WriteByte('\\')
			}
			if s.pos+1 < len(s.src) && s.src[s.pos+1] != '\n' {
				value.WriteByte(s.src[s.pos+1])
			}
			s.pos = min(len(s.src), s.pos+2)
			continue
		case '`':
			s.backquotes()
		case '$':
			s.dollar()
		default:
			s.pos++
		}
		value.WriteString(s.src[from:min(s.pos, len(s.src))])
	}
	s.fail()
}

// ansiQuotes reads $'…'.
func (s *scanner) ansiQuotes() {
	for s.pos += 2; !s.done(); s.pos++ {
		switch s.src[s.pos] {
		case '\\':
			s.pos++
		case '\'':
			s.pos++
			return
		}
	}
	s.fail()
}

// backquotes reads `…`.
func (s *scanner) backquotes() {
	s.pos++
	var inner strings.Builder
	for !s.done() {
		switch c := s.src[s.pos]; {
		case c == '`':
			s.pos++
			s.nested(inner.String())
			return
		case c == '\\' && strings.IndexByte("`\\$", s.peek(1)) >= 0 && s.pos+1 < len(s.src):
			inner.WriteByte(s.src[s.pos+1])
			s.pos += 2
		default:
			inner.WriteByte(c)
			s.pos++
		}
	}
	s.fail()
}

// dollar reads what begins with $: a substitution, arithmetic, a parameter, or
// nothing of the kind.
func (s *scanner) dollar() {
	switch {
	case s.peek(1) == '(' && s.peek(2) == '(':
		s.pos++
		s.arithmetic()
	case s.peek(1) == '(':
		s.pos += 2
		s.parens()
	case s.peek(1) == '{':
		s.pos += 2
		s.braces()
	default:
		s.pos++
		for !s.done() && (s.src[s.pos] == '_' || isAlnum(s.src[s.pos])) {
			s.pos++
		}
	}
}

// parens reads commands up to the closing parenthesis.
func (s *scanner) parens() {
	if s.nesting+1 > maxNesting {
		s.fail()
		return
	}
	in := &scanner{src: s.src, pos: s.pos, out: s.out, nesting: s.nesting + 1}
	in.commands(true)
	s.pos = in.pos
}

// braces reads a parameter expansion up to its closing brace.
func (s *scanner) braces() {
	if s.nesting++; s.nesting > maxNesting {
		s.fail()
	}
	defer func() { s.nesting-- }()
	var unused strings.Builder
	for !s.done() {
		switch s.src[s.pos] {
		case '}':
			s.pos++
			return
		case '\\':
			s.pos = min(len(s.src), s.pos+2)
		case '\'':
			end := strings.IndexByte(s.src[s.pos+1:], '\'')
			s.pos += max(0, end) + 2
		case '"':
			s.doubleQuotes(&unused)
		case '`':
			s.backquotes()
		case '$':
			s.dollar()
		default:
			s.pos++
		}
	}
	s.fail()
}

// subcommands lists the commands whose first words name what they do, by how
// many words that takes. OpenCode offers "always allow" by these words.
var subcommands = sync.OnceValue(func() map[string]int {
	words := map[string]int{}
	for n, names := range map[int]string{
		1: `cat cd chmod chown cp echo env export grep kill killall ln ls mkdir mv ps pwd rm rmdir
			sleep source tail touch unset which`,
		2: `bazel brew bun cargo cdk cf cmake composer consul crictl deno docker eksctl firebase
			flyctl git go gradle helm heroku hugo ip kind kubectl kustomize make mc minikube mongosh
			mysql mvn ng npm nvm nx openssl pip pipenv pnpm poetry podman psql pulumi pyenv python
			rake rbenv redis-cli rustup serverless skaffold sls sst swift systemctl terraform tmux
			turbo ufw vault vercel volta wp yarn`,
		3: `aws az doctl gcloud gh sfdx`,
	} {
		for _, name := range strings.Fields(names) {
			words[name] = n
		}
	}
	for _, name := range strings.Split(`bun run,bun x,cargo add,cargo run,consul kv,deno task,
		docker builder,docker compose,docker container,docker image,docker network,docker volume,
		git config,git remote,git stash,ip addr,ip link,ip netns,ip route,kind create,
		kubectl kustomize,kubectl rollout,mc admin,npm exec,npm init,npm run,npm view,openssl req,
		openssl x509,pnpm dlx,pnpm exec,pnpm run,podman container,podman image,pulumi stack,
		terraform workspace,vault auth,vault kv,yarn dlx,yarn run`, ",") {
		words[strings.Join(strings.Fields(name), " ")] = 3
	}
	return words
})

// commandPrefix gives how many words name what a command does: those of the
// longest known beginning, else one.
func commandPrefix(words []string) int {
	for n := min(len(words), 2); n > 0; n-- {
		if count, ok := subcommands()[strings.Join(words[:n], " ")]; ok {
			return min(count, len(words))
		}
	}
	return min(1, len(words))
}
