package inject

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// shells are programs that may run a script given as an argument.
var shells = []string{"sh", "bash", "ash", "dash"}

// scriptFlag is -c, alone or beside flags that do not change what a script of
// one command does.
var scriptFlag = regexp.MustCompile(`^-[eux]*c$`)

// anyScriptFlag is -c, alone or beside other flags.
var anyScriptFlag = regexp.MustCompile(`^-[a-zA-Z]*c$`)

// script is what a shell in the container's command is given to run.
func (c *Container) script() (text string, ok bool) {
	if len(c.Command) == 0 || !slices.Contains(shells, path.Base(c.Command[0])) {
		return "", false
	}
	args := slices.Concat(c.Command[1:], c.Args)
	if len(args) != 2 || !scriptFlag.MatchString(args[0]) {
		return "", false
	}
	return args[1], true
}

// commandLine is the container's program, empty where the image decides, and
// its arguments. Of a shell's script it is the one command that the script
// consists of; where it is more than that, the shell is the program.
func (c *Container) commandLine() (program string, args []string) {
	if text, ok := c.script(); ok {
		if words := simpleCommand(text); words != nil {
			return words[0], words[1:]
		}
	}
	if len(c.Command) > 0 {
		program = c.Command[0]
	}
	return program, c.arguments()
}

// simpleCommand splits a script into the words of its one command, in which
// $NAME stays as it is; nil where the script is anything else.
func simpleCommand(script string) []string {
	script = strings.TrimSpace(strings.ReplaceAll(script, "\\\n", " "))
	var words []string
	var word strings.Builder
	inWord := false
	end := func() {
		if inWord {
			words = append(words, word.String())
		}
		word.Reset()
		inWord = false
	}
	for i := 0; i < len(script); i++ {
		switch b := script[i]; b {
		case ' ', '\t':
			end()
		case '\'', '"':
			length := strings.IndexByte(script[i+1:], b)
			if length < 0 {
				return nil
			}
			quoted := script[i+1 : i+1+length]
			if b == '"' && strings.ContainsAny(quoted, "`\\(") {
				return nil
			}
			word.WriteString(quoted)
			inWord = true
			i += length + 1
		case '\n', '\r', ';', '|', '&', '<', '>', '(', ')', '`', '\\', '*', '?', '[', ']', '#', '~', '!':
			return nil
		default:
			word.WriteByte(b)
			inWord = true
		}
	}
	end()
	if len(words) > 0 && words[0] == "exec" {
		words = words[1:]
	}
	if len(words) == 0 || strings.ContainsAny(words[0], "=$") {
		return nil
	}
	return words
}

// wordsBefore may stand before the program in a command of a script.
var wordsBefore = []string{"exec", "if", "then", "else", "do", "while", "until", "!", "{", "time", "env", "nohup"}

// programs returns the names of the programs that a script may run, as far as
// it names them literally: the first word of each of its commands.
func programs(script string) []string {
	var found []string
	for command := range strings.FieldsFuncSeq(strings.ReplaceAll(script, "\\\n", " "), func(r rune) bool {
		return strings.ContainsRune(";|&\n\r()`", r)
	}) {
		for word := range strings.FieldsSeq(command) {
			if slices.Contains(wordsBefore, word) || strings.Contains(word, "=") && !strings.HasPrefix(word, "-") {
				continue
			}
			found = append(found, path.Base(strings.Trim(word, `"'`)))
			break
		}
	}
	return found
}
