package cli

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// The linker (-X) sets both: release in release builds only, revision in builds that
// do not see git's files, so that an image and a local build are the same bytes.
var release, revision string

// publishedImage returns the published image of this version, for commands that work
// without a cluster. In a cluster the flag --image of the webhook names it.
func publishedImage() string {
	const repository = "ghcr.io/ampbridge/ampbridge:"
	if release == "" {
		return repository + "latest"
	}
	return repository + release
}

// versionText returns the version, Go's version, and the commit if the toolchain noted
// it.
func versionText() string {
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

// newVersion returns `ampbridge version`.
func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  ampbridge version",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "ampbridge", versionText())
			return err
		},
	}
}
