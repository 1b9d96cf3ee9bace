package cli

import (
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth is the longest line of a help text, in columns.
const helpWidth = 100

// headingOf is the annotation of a flag that is listed under a heading of its own.
const headingOf = "ampbridge.io/heading"

// ungrouped is the heading of all other flags.
const ungrouped = "Flags"

// grouped adds the flags that register adds, and lists them in the help under a heading.
func grouped(flags *pflag.FlagSet, heading string, register func(*pflag.FlagSet)) {
	group := pflag.NewFlagSet(heading, pflag.ContinueOnError)
	register(group)
	group.VisitAll(func(f *pflag.Flag) {
		if f.Annotations == nil {
			f.Annotations = map[string][]string{}
		}
		f.Annotations[headingOf] = []string{heading}
		flags.AddFlag(f) // it panics if the command has a flag of the same name
	})
}

// FlagGroup is a group of flags in a help text.
type FlagGroup struct {
	Heading string
	Flags   *pflag.FlagSet
}

// FlagGroups returns the visible flags of a command as its help groups them. The command's
// own flags come first, and the flags for the connection to the cluster last.
func FlagGroups(cmd *cobra.Command) []FlagGroup {
	cmd.InitDefaultHelpFlag()
	var groups []FlagGroup
	add := func(f *pflag.Flag, heading string) {
		for _, g := range groups {
			if g.Heading == heading {
				g.Flags.AddFlag(f)
				return
			}
		}
		set := pflag.NewFlagSet(heading, pflag.ContinueOnError)
		set.AddFlag(f)
		groups = append(groups, FlagGroup{heading, set})
	}
	for _, pass := range []func(heading string) bool{
		func(heading string) bool { return heading == ungrouped },
		func(heading string) bool { return heading != ungrouped && heading != KubernetesHeading },
		func(heading string) bool { return heading == KubernetesHeading },
	} {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			heading := ungrouped
			if own := f.Annotations[headingOf]; len(own) > 0 {
				heading = own[0]
			}
			if !f.Hidden && pass(heading) {
				add(f, heading)
			}
		})
	}
	return groups
}

// writeHelp writes the help of a command. Its lines have at most [helpWidth] columns if those
// of the command's texts do.
func writeHelp(w io.Writer, cmd *cobra.Command) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s.\n", strings.TrimSuffix(cmd.Short, "."))
	if cmd.Long != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(cmd.Long))
	}
	b.WriteString("\nUsage:\n")
	cmd.InitDefaultHelpFlag() // [flags] of the line depends on it
	fmt.Fprintf(&b, "  %s\n", cmd.UseLine())
	if cmd.HasAvailableSubCommands() && !strings.HasSuffix(cmd.Use, " COMMAND") {
		fmt.Fprintf(&b, "  %s COMMAND\n", cmd.CommandPath())
	}
	if cmd.Example != "" {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", cmd.Example)
	}
	writeCommands(&b, cmd)
	for _, g := range FlagGroups(cmd) {
		fmt.Fprintf(&b, "\n%s:\n%s", g.Heading, g.Flags.FlagUsagesWrapped(helpWidth))
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n%s COMMAND --help describes a command.\n", cmd.CommandPath())
	}
	_, err := io.WriteString(w, asInvoked(cmd, b.String()))
	return err
}

// writeCommands lists the commands below cmd, by their groups.
func writeCommands(b *strings.Builder, cmd *cobra.Command) {
	list := func(heading, group string) {
		for _, c := range cmd.Commands() {
			if c.GroupID != group || !c.IsAvailableCommand() {
				continue
			}
			if heading != "" {
				fmt.Fprintf(b, "\n%s:\n", heading)
				heading = ""
			}
			fmt.Fprintf(b, "  %-*s  %s\n", cmd.Commands()[0].NamePadding(), c.Name(), c.Short)
		}
	}
	for _, g := range cmd.Groups() {
		list(g.Title, g.ID)
	}
	heading := "Commands"
	if len(cmd.Groups()) > 0 {
		heading = "Other commands"
	}
	list(heading, "")
}

// asInvoked writes the program as it was invoked, such as `kubectl ampbridge`, into the
// commands of a text.
func asInvoked(cmd *cobra.Command, text string) string {
	invoked := cmd.Root().DisplayName()
	if invoked == program {
		return text
	}
	var names []string
	for _, c := range cmd.Root().Commands() {
		names = append(names, regexp.QuoteMeta(c.Name()))
	}
	commands := regexp.MustCompile(`(^|[^/\w-])(?:` + program + `) (` + strings.Join(names, "|") + `)\b`)
	text = strings.ReplaceAll(text, invoked+" ", "\x00")
	text = commands.ReplaceAllString(text, "${1}"+invoked+" ${2}")
	return strings.ReplaceAll(text, "\x00", invoked+" ")
}
