package inject

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// shells are programs that can run a script from an argument.
var shells = []string{"sh", "bash", "ash", "dash"}

// scriptFlag matches -c, alone or with flags that do not change what a script with one command
// does.
var scriptFlag = regexp.MustCompile(`^-[eux]*c$`)

// anyScriptFlag matches -c, alone or with other flags.
var anyScriptFlag = regexp.MustCompile(`^-[a-zA-Z]*c$`)

// script returns the script that the container's command passes to a shell.
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

// commandLine returns the container's program and its arguments. The program is empty if the image
// determines it. If a shell runs a script with only one command, commandLine returns this command.
// Otherwise the shell is the program.
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

// simpleCommand splits a script with one command into its words. $NAME stays unchanged. It returns
// nil for any other script.
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

// wordsBefore can precede the program in a command of a script.
var wordsBefore = []string{"exec", "if", "then", "else", "do", "while", "until", "!", "{", "time", "env", "nohup"}

// programs returns the names of the programs that a script can run, if the script contains the
// names literally: the first word of each command.
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
