package cli

import (
	"io"

	"github.com/spf13/cobra"
)

// kubectlCompletion is the program that kubectl runs to complete `kubectl ampbridge`.
const kubectlCompletion = `#!/bin/sh
exec ` + plugin + ` ` + cobra.ShellCompRequestCmd + ` "$@"
`

// newCompletion returns `ampbridge completion`. Cobra's own command prints to the standard
// output of the process, and has no script for kubectl.
func newCompletion() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "completion",
		Short: "Print the script that lets a shell complete commands, flags and their values",
		Long: `The shell then also completes namespaces, service accounts, contexts, output formats, and
the destinations and grants of the policy file.`,
		Example: "  source <(ampbridge completion bash)",
	}
	for _, shell := range []struct {
		name, short, example string
		write                func(*cobra.Command, io.Writer) error
	}{
		{"bash", "Print the script for bash",
			"  # For this shell; it needs the package bash-completion.\n  source <(ampbridge completion bash)\n\n" +
				"  # For all shells of this machine.\n  ampbridge completion bash > /etc/bash_completion.d/ampbridge",
			func(root *cobra.Command, w io.Writer) error { return root.GenBashCompletionV2(w, true) }},
		{"zsh", "Print the script for zsh",
			"  # For this shell.\n  source <(ampbridge completion zsh)\n\n" +
				"  # For every new shell.\n  ampbridge completion zsh > \"${fpath[1]}/_ampbridge\"",
			func(root *cobra.Command, w io.Writer) error { return root.GenZshCompletion(w) }},
		{"fish", "Print the script for fish",
			"  ampbridge completion fish > ~/.config/fish/completions/ampbridge.fish",
			func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) }},
		{"powershell", "Print the script for PowerShell",
			"  ampbridge completion powershell | Out-String | Invoke-Expression",
			func(root *cobra.Command, w io.Writer) error { return root.GenPowerShellCompletionWithDesc(w) }},
		{"kubectl", "Print the program that lets kubectl complete the plugin `kubectl ampbridge`",
			"  # Into a directory of the PATH, beside " + plugin + ".\n" +
				"  ampbridge completion kubectl > ~/bin/kubectl_complete-ampbridge\n  chmod +x ~/bin/kubectl_complete-ampbridge",
			func(_ *cobra.Command, w io.Writer) error {
				_, err := io.WriteString(w, kubectlCompletion)
				return err
			}},
	} {
		cmd.AddCommand(&cobra.Command{
			Use: shell.name, Short: shell.short, Example: shell.example,
			RunE: func(cmd *cobra.Command, _ []string) error { return shell.write(cmd.Root(), cmd.OutOrStdout()) },
		})
	}
	return cmd
}
