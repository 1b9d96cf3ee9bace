package kubelet

import (
	"crypto/rand"
	"encoding/base64"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/test/testkit"
)

func TestVolumes(t *testing.T) {
	cm := configMap(t, map[string]string{"prometheus.yml": "global: {}\n", "other": "o"})
	secret, err := testbed.client.CoreV1().Secrets(namespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "secret-"}, Data: map[string][]byte{"password": []byte("hunter2")},
	}, metav1.CreateOptions{})
	testkit.Must(t, err)
	life := int64(1200)
	pod := newPod(container(
		"main",
		"report",
		"/etc/config/prometheus.yml",
		"/etc/secret/deep/password",
		"/etc/all/labels",
		"/etc/all/cm/other",
		"/etc/all/name",
		"/etc/optional/nothing",
		"/etc/config/single",
		"w:/etc/config/new",
		"w:/scratch/file",
		"w:/var/claim/file",
		"w:/etc/anywhere",
		"w:/scratch-ro/file",
	))
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{
		RunAsUser:    new(int64(1000)),
		RunAsGroup:   new(int64(2000)),
		RunAsNonRoot: new(true),
	}
	pod.Spec.Volumes = []corev1.Volume{
		configMapVolume(cm),
		{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
			SecretName: secret.Name, DefaultMode: new(int32(0o440)),
			Items: []corev1.KeyToPath{{Key: "password", Path: "deep/password", Mode: new(int32(0o400))}},
		}}},
		{Name: "optional", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "is-not-there"}, Optional: new(true),
		}}},
		{Name: "all", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{
				ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
					Audience:          "sts.amazonaws.com",
					ExpirationSeconds: &life,
					Path:              "token",
				},
			},
			{
				ConfigMap: &corev1.ConfigMapProjection{
					LocalObjectReference: corev1.LocalObjectReference{Name: cm.Name},
					Items:                []corev1.KeyToPath{{Key: "other", Path: "cm/other"}},
				},
			},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
				{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}},
			}}},
		}}}},
		emptyDir("scratch"),
		{
			Name:         "claim",
			VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}},
		},
	}
	c := &pod.Spec.Containers[0]
	c.SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: new(true)}
	c.VolumeMounts = []corev1.VolumeMount{
		{Name: "config", MountPath: "/etc/config"},
		{Name: "secret", MountPath: "/etc/secret", ReadOnly: true},
		{Name: "optional", MountPath: "/etc/optional"},
		{Name: "all", MountPath: "/etc/all"},
		{Name: "scratch", MountPath: "/scratch"},
		{Name: "scratch", MountPath: "/scratch-ro", ReadOnly: true},
		{Name: "claim", MountPath: "/var/claim"},
	}
	p := run(t, pod)
	eventually(t, p, "the end", ended(p))
	got := newestReport(t, p.Container("main"))

	wantFiles := map[string]string{
		"/etc/config/prometheus.yml": "global: {}\n",
		"/etc/secret/deep/password":  "hunter2",
		"/etc/all/labels":            `app="probe"`,
		"/etc/all/cm/other":          "o",
		"/etc/all/name":              p.spec.Name,
		"/etc/optional/nothing":      "open /etc/optional/nothing: no such file or directory",
		"/etc/config/single":         "open /etc/config/single: no such file or directory",
	}
	if diff := cmp.Diff(wantFiles, got.Files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	readOnly := ": read-only file system"
	wantWrites := map[string]string{
		"/etc/config/new":  "open /etc/config/new" + readOnly,
		"/etc/anywhere":    "open /etc/anywhere" + readOnly,
		"/scratch-ro/file": "open /scratch-ro/file" + readOnly,
		"/scratch/file":    "", "/var/claim/file": "",
	}
	if diff := cmp.Diff(wantWrites, got.Writes); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	for path, want := range map[string]os.FileMode{
		"config/..data/prometheus.yml": 0o644, "secret/..data/deep/password": 0o400,
		"all/..data/token": 0o600, "all/..data/labels": 0o644, "optional/..data": 0o755 | os.ModeDir,
	} {
		info, err := os.Stat(filepath.Join(p.dir, "volumes", path))
		if err != nil {
			t.Error(err)
		} else if info.Mode() != want {
			t.Errorf("%s: got mode %v, want %v", path, info.Mode(), want)
		}
	}

	token := testkit.ReadFile(t, filepath.Join(p.VolumeDir("all"), "token"))
	var claims struct {
		Audience []string `json:"aud"`
		Subject  string   `json:"sub"`
		Expires  int64    `json:"exp"`
		Issued   int64    `json:"iat"`
		K8s      struct {
			Pod struct{ Name, UID string }
		} `json:"kubernetes.io"`
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	testkit.Must(t, err)
	testkit.DecodeJSON(t, payload, &claims)
	if claims.Audience[0] != "sts.amazonaws.com" || claims.Subject != "system:serviceaccount:default:default" ||
		claims.Expires-claims.Issued != life || claims.K8s.Pod.Name != p.spec.Name || claims.K8s.Pod.UID != string(p.spec.UID) {
		t.Errorf("token claims: got %+v, want audience, subject, life and pod of the volume", claims)
	}
}

func TestTokenIsRenewed(t *testing.T) {
	pod := newPod(container("main", "sleep"))
	pod.Spec.Volumes = []corev1.Volume{{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "a", ExpirationSeconds: new(int64(600)), Path: "token"}},
		},
	}}}}
	p := run(t, pod)
	eventually(t, p, "running", p.Ready)
	file := filepath.Join(p.VolumeDir("token"), "token")
	first := testkit.ReadFile(t, file)
	// Pretend that 80% of ten minutes have passed.
	p.tokens.mu.Lock()
	held := p.tokens.held["a 600"]
	if age := time.Until(held.renew); age > 480*time.Second || age < 400*time.Second {
		t.Errorf("renewal in %s, want it after 480 s", age)
	}
	held.renew = time.Now()
	p.tokens.held["a 600"] = held
	p.tokens.mu.Unlock()
	eventually(t, p, "a new token", func() bool {
		second, err := os.ReadFile(file)
		return err == nil && string(second) != first
	})
}

// TestUpdate checks that a changed ConfigMap reaches a running container through a renamed ..data, except for
// a subPath mount.
func TestUpdate(t *testing.T) {
	cm := configMap(t, map[string]string{"a": "1", "gone": "x"})
	pod := newPod(container("main", "sleep"))
	pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	pod.Spec.Volumes = []corev1.Volume{configMapVolume(cm)}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{
		{Name: "config", MountPath: "/live"},
		{Name: "config", MountPath: "/pinned", SubPath: "a"},
		{Name: "config", MountPath: "/pinned-expr", SubPathExpr: "$(KEY)"},
	}
	pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "KEY", Value: "a"}}
	p := run(t, pod)
	eventually(t, p, "running", p.Ready)
	c := p.Container("main")
	see := func() map[string]string {
		out, err := c.Exec(t.Context(), "/bin/probe", "report", "/live/a", "/live/b", "/live/gone", "/pinned", "/pinned-expr")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		var r report
		testkit.DecodeJSON(t, out, &r)
		return r.Files
	}
	missing := func(path string) string { return "open " + path + ": no such file or directory" }
	want := map[string]string{"/live/a": "1", "/live/b": missing("/live/b"), "/live/gone": "x", "/pinned": "1", "/pinned-expr": "1"}
	if diff := cmp.Diff(want, see()); diff != "" {
		t.Fatalf("at first (-want +got):\n%s", diff)
	}
	first := layout(t, p.VolumeDir("config"))
	if !regexp.MustCompile(`^\.\.\d{4}_\d\d_\d\d_\d\d_\d\d_\d\d\.\d+$`).MatchString(first["..data"]) {
		t.Errorf("..data points to %q, want a timestamped directory", first["..data"])
	}

	update(t, cm, map[string]string{"a": "2", "b": "3"})
	eventually(t, p, "the update", func() bool { return see()["/live/b"] == "3" })
	want = map[string]string{"/live/a": "2", "/live/b": "3", "/live/gone": missing("/live/gone"), "/pinned": "1", "/pinned-expr": "1"}
	if diff := cmp.Diff(want, see()); diff != "" {
		t.Errorf("after the update (-want +got):\n%s", diff)
	}
	second := layout(t, p.VolumeDir("config"))
	if second["..data"] == first["..data"] {
		t.Error("..data points to the same directory after the update")
	}
	wantLayout := map[string]string{"..data": second["..data"], second["..data"]: "", "a": "..data/a", "b": "..data/b"}
	if diff := cmp.Diff(wantLayout, second); diff != "" {
		t.Errorf("layout after the update (-want +got):\n%s", diff)
	}

	testkit.Must(t, c.Kill(9))
	eventually(t, p, "a restart", func() bool { return c.Restarts() == 1 && c.Running() })
	if got := see()["/pinned"]; got != "2" {
		t.Errorf("subPath after a restart: got %q, want the new content", got)
	}
}

// layout returns the content of a volume's directory: names, and the targets of links.
func layout(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	testkit.Must(t, err)
	got := map[string]string{}
	for _, e := range entries {
		target, _ := os.Readlink(filepath.Join(dir, e.Name())) // "" if it is not a link
		got[e.Name()] = target
	}
	return got
}

func TestWriteVolumeRefusesPathsOutside(t *testing.T) {
	for _, path := range []string{"../x", "/x", "..data/x", "a/../../x"} {
		if err := testkit.WriteVolume(t.TempDir(), map[string]testkit.VolumeFile{path: {}}); err == nil {
			t.Errorf("%q: got no error", path)
		}
	}
}

func TestPodWaitsForItsVolumes(t *testing.T) {
	pod := newPod(container("main", "report", "/etc/config/a"))
	name := "later-" + strings.ToLower(rand.Text())
	pod.Spec.Volumes = []corev1.Volume{configMapVolume(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}})}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "config", MountPath: "/etc/config"}}
	p := run(t, pod)
	eventually(t, p, "a reason", func() bool {
		return strings.Contains(p.Status().Message, "configmaps "+strconv.Quote(name)+" not found")
	})
	if _, err := testbed.client.CoreV1().ConfigMaps(namespace).Create(
		t.Context(),
		&corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Data:       map[string]string{"a": "1"},
		},
		metav1.CreateOptions{},
	); err != nil {
		t.Fatal(err)
	}
	eventually(t, p, "the end", ended(p))
	if got := newestReport(t, p.Container("main")).Files["/etc/config/a"]; got != "1" {
		t.Errorf("got %q, want 1", got)
	}
}
