// Package version is the command `ampbridge version`, and knows which build this
// is.
package version

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// The linker (-X) sets both: release in release builds alone, revision wherever
// the build does not see git's files, so that an image and a build beside it are
// the same bytes.
var release, revision string

// Image is the published image of this version, for commands that work without a
// cluster; in a cluster the webhook is told its own.
func Image() string {
	const repository = "ghcr.io/ampbridge/ampbridge:"
	if release == "" {
		return repository + "latest"
	}
	return repository + release
}

// String is the version, the commit it was built from where the toolchain noted
// it, and Go's.
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return release
	}
	version, commit, modified := release, revision, ""
	if version == "" {
		version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = ", modified"
		}
	}
	if commit != "" {
		commit = ", commit " + commit
	}
	return fmt.Sprintf("%s (%s%s%s)", version, info.GoVersion, commit, modified)
}

// New is the command.
func New() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  ampbridge version",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "ampbridge", String())
			return err
		},
	}
}
