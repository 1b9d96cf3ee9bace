package session

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Profile is a section of an AWS config file by which an SDK gets sessions by
// itself, for a Prometheus that never reads its configuration again
// (https://docs.aws.amazon.com/sdkref/latest/guide/feature-assume-role-credentials.html).
type Profile struct {
	Name, Region string
	// Role is assumed with the token; AssumeRole, if set, with the session of Role.
	Role, AssumeRole string
}

// caFile lies beside the config file.
const caFile = "ca.pem"

// services is the section that says where STS is; SDK v1 does not know it.
const services = "ampbridge"

// WriteProfiles makes path an AWS config file with the profiles, which reach
// STS as o says; a proxy cannot be told in it. It holds no secrets. What is
// there already is not written again.
func WriteProfiles(path string, profiles []Profile, o Options) error {
	var b strings.Builder
	if o.Endpoint != "" {
		fmt.Fprintf(&b, "[services %s]\nsts =\n  endpoint_url = %s\n\n", services, o.Endpoint)
	}
	section := func(name, region string, lines ...string) {
		fmt.Fprintf(
			&b,
			"[profile %s]\n%s\nrole_session_name = %s\nregion = %s\nsts_regional_endpoints = regional\n",
			name,
			strings.Join(lines, "\n"),
			o.Name,
			region,
		)
		if o.Endpoint != "" {
			fmt.Fprintf(&b, "services = %s\n", services)
		}
		if o.CABundle != "" {
			fmt.Fprintf(&b, "ca_bundle = %s\n", filepath.Join(filepath.Dir(path), caFile))
		}
		b.WriteString("\n")
	}
	for _, p := range profiles {
		if strings.ContainsAny(p.Name+p.Region+p.Role+p.AssumeRole+o.Name+o.Token+o.Endpoint, " \t\r\n[]#;") {
			return fmt.Errorf("profile %q: a value cannot be written to a config file", p.Name)
		}
		first := p.Name
		if p.AssumeRole != "" {
			first += "-first"
			section(p.Name, p.Region, "role_arn = "+p.AssumeRole, "source_profile = "+first)
		}
		section(first, p.Region, "role_arn = "+p.Role, "web_identity_token_file = "+o.Token)
	}
	if o.CABundle != "" {
		// The SDKs trust nothing else then, while the sidecar adds it to the
		// system's roots.
		if err := writeIfChanged(filepath.Join(filepath.Dir(path), caFile), []byte(systemRoots()+o.CABundle)); err != nil {
			return fmt.Errorf("CA file: %w", err)
		}
	}
	if err := writeIfChanged(path, []byte(b.String())); err != nil {
		return fmt.Errorf("config file: %w", err)
	}
	return nil
}

func writeIfChanged(path string, content []byte) error {
	now, err := os.ReadFile(path)
	if err == nil && bytes.Equal(now, content) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return WriteFile(path, content, 0o644)
}

// systemRoots is the PEM text of the system's roots, where crypto/x509 finds
// them on Linux; empty where there are none.
func systemRoots() string {
	for _, file := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"} {
		if text, err := os.ReadFile(file); err == nil {
			return strings.TrimSpace(string(text)) + "\n"
		}
	}
	return ""
}
