package kubelet

// sandbox is everything a container's process needs to know to build its root and execute its program.
type sandbox struct {
	Root         string // an empty directory of the host, to mount the root file system on
	Mounts       []mount
	ReadOnlyRoot bool
	Hostname     string // "" keeps the host's
	UID, GID     int    // as the container sees itself; the host's user is always this process's
	WorkingDir   string
	Args         []string
	Env          []string

	Parent int  // process id of the one that started it
	Join   bool // enter the root in rootFD instead of building one
}

// mount binds a file or directory of the host into a container.
type mount struct {
	Source   string // host
	Target   string // container
	ReadOnly bool
}
