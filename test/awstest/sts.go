package awstest

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// stsOperations are the signed calls of STS that the double implements.
var stsOperations = map[string]operation{
	"AssumeRole":        assumeRole,
	"GetCallerIdentity": getCallerIdentity,
}

const (
	minSession     = 900
	maxSession     = 43200
	defaultSession = 3600
	maxChained     = 3600
)

var (
	validSessionName            = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)
	errNotAuthorizedWebIdentity = apiErr(403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
	errDurationAboveRole        = apiErr(
		400,
		"ValidationError",
		"The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
	)
	errDurationAboveChainedLimit = apiErr(
		400,
		"ValidationError",
		"The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.",
	)
)

// sessionRequest holds what both ways to assume a role have in common.
type sessionRequest struct {
	account  *Account // the role's; nil if the double has no account with that ID
	roleARN  string
	name     string
	duration int // seconds
	policy   *document
	packed   *int // percent
	// tags are the session's tags, and transitive those that later sessions inherit.
	tags, transitive []tag
}

// sessionRequest reads and checks the parameters.
func (q *queryCall) sessionRequest() (s sessionRequest, err error) {
	c := q.cloud
	s.roleARN, s.name = q.form.Get("RoleArn"), q.form.Get("RoleSessionName")
	parts := strings.SplitN(s.roleARN, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "iam" || !strings.HasPrefix(parts[5], "role/") {
		return s, apiErrf(400, "ValidationError", "%s is invalid", s.roleARN)
	}
	if !validSessionName.MatchString(s.name) {
		return s, invalid(s.name, "roleSessionName", `Member must satisfy regular expression pattern: [\w+=,.@-]{2,64}`)
	}
	shortest := minSession
	if c.shortSessions {
		shortest = 1
	}
	if s.duration, err = q.form.number("DurationSeconds", defaultSession, shortest, maxSession); err != nil {
		return s, err
	}
	if q.form.Has("PolicyArns.member.1.arn") {
		return s, apiErr(400, "ValidationError", "PolicyArns is not supported by this double of STS: pass the policy itself.")
	}
	if text := q.form.Get("Policy"); text != "" {
		d, err := parseDocument(identityPolicy, text)
		if err != nil {
			return s, err
		}
		size := packedSize(text)
		s.policy, s.packed = &d, &size
	}
	s.account = c.accounts[parts[4]]
	return s, nil
}

// role returns the role with the ARN as STS sees it: changes reach STS with a delay.
func (s sessionRequest) role(seen time.Time) *role {
	if s.account == nil {
		return nil
	}
	name := s.roleARN[strings.LastIndex(s.roleARN, "/")+1:]
	r := s.account.roles[strings.ToLower(name)].seen(seen)
	if r == nil || r.arn != s.roleARN {
		return nil
	}
	return r
}

type credentialsXML struct {
	AccessKeyID     string `xml:"AccessKeyId"`
	SecretAccessKey string
	SessionToken    string
	Expiration      iso8601
}

type assumedRoleXML struct {
	ARN           string `xml:"Arn"`
	AssumedRoleID string `xml:"AssumedRoleId"`
}

type sessionResult struct {
	Credentials                 credentialsXML
	AssumedRoleUser             assumedRoleXML
	PackedPolicySize            *int
	SubjectFromWebIdentityToken string `xml:",omitempty"`
	Audience                    string `xml:",omitempty"`
	Provider                    string `xml:",omitempty"`
}

// issue returns the credentials of a session.
func (c *Cloud) issue(s sessionRequest, r *role) (sessionResult, *credential) {
	life := time.Duration(s.duration) * time.Second
	if c.sessionLife > 0 {
		life = min(life, c.sessionLife)
	}
	session := &credential{
		Credentials: Credentials{
			AccessKeyID: "ASIA" + randomID(16), SecretAccessKey: randomSecret(30), SessionToken: "IQoJb3JpZ2luX2Vj" + randomSecret(300),
		},
		account: s.account, expires: c.now().Add(life).Truncate(time.Second),
		roleName: r.name, roleID: r.id, roleARN: r.arn, sessionName: s.name, sessionPolicy: s.policy,
		sessionTags: s.tags, transitive: s.transitive,
	}
	c.credentials[session.AccessKeyID] = session
	return sessionResult{
		Credentials:      credentialsXML{session.AccessKeyID, session.SecretAccessKey, session.SessionToken, iso8601(session.expires)},
		AssumedRoleUser:  assumedRoleXML{session.arn(), session.userID()},
		PackedPolicySize: s.packed,
	}, session
}

// assumeRoleWithWebIdentity handles an unsigned call: the token is the proof. It holds the lock
// only while it uses the account's state, so that a slow issuer does not block other calls.
func (q *queryCall) assumeRoleWithWebIdentity() (any, error) {
	c := q.cloud
	c.mu.Lock()
	request, err := q.sessionRequest()
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	token, err := parseToken(q.form.Get("WebIdentityToken"))
	if err != nil {
		return nil, err
	}
	if request.account == nil {
		return nil, noProviderFor(token.Issuer)
	}
	c.mu.Lock()
	provider, err := request.account.providerOf(token, c.now().Add(-c.propagation))
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := c.verifySignature(q.r.Context(), token, provider); err != nil {
		return nil, err
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	if err := token.verifyTime(c.now()); err != nil {
		return nil, err
	}
	audience, err := token.registeredAudience(provider)
	if err != nil {
		return nil, err
	}
	role := request.role(c.now().Add(-c.propagation))
	if role == nil {
		return nil, errNotAuthorizedWebIdentity
	}
	context := token.conditionKeys(provider, audience)
	context.set("sts:RoleSessionName", request.name)
	who := assumer{kind: "Federated", names: []string{provider.arn}}
	if verdict, _ := evaluateTrust(role.trust, who, "sts:AssumeRoleWithWebIdentity", context); verdict != allow {
		return nil, errNotAuthorizedWebIdentity
	}
	if request.duration > role.maxSession {
		return nil, errDurationAboveRole
	}
	result, session := c.issue(request, role)
	result.SubjectFromWebIdentityToken, result.Audience, result.Provider = token.Subject, audience, provider.arn
	q.record.Principal = session.arn()
	return result, nil
}

// assumeRole needs two permissions: the role's trust document, and the caller's own policies. The latter are not
// needed if the trust document names a principal of its own account.
func assumeRole(q *queryCall) (any, error) {
	c := q.cloud
	request, err := q.sessionRequest()
	if err != nil {
		return nil, err
	}
	role := request.role(c.now().Add(-c.propagation))
	if role == nil {
		return nil, refusedAction(q.caller, "sts:AssumeRole", request.roleARN)
	}
	context := c.contextOf(q.caller)
	context.set("sts:RoleSessionName", request.name)
	if id := q.form.Get("ExternalId"); id != "" {
		context.set("sts:ExternalId", id)
	}
	if err := q.tagSession(&request); err != nil {
		return nil, err
	}
	for _, action := range request.actions(context) {
		verdict, named := evaluateTrust(role.trust, q.caller.assumer(), action, context)
		if verdict != allow {
			return nil, refusedAction(q.caller, action, role.arn)
		}
		own := c.permissionsOf(q.caller)
		if named && q.caller.account == request.account {
			own.identity = append(own.identity, allowAssuming(role.arn))
		}
		if ok, _ := own.decide(access{action, role.arn, context}); !ok {
			return nil, refusedAction(q.caller, action, role.arn)
		}
	}
	switch chained := q.caller.user == nil; {
	case chained && request.duration > maxChained:
		return nil, errDurationAboveChainedLimit
	case request.duration > role.maxSession:
		return nil, errDurationAboveRole
	}
	result, _ := c.issue(request, role)
	return result, nil
}

func refusedAction(caller *credential, action, role string) error {
	return apiErrf(403, "AccessDenied", "User: %s is not authorized to perform: %s on resource: %s", caller.arn(), action, role)
}

// tagSession adds the tags of the call to those that the caller's session passes on.
func (q *queryCall) tagSession(s *sessionRequest) error {
	asked := q.form.tags()
	if err := checkTags(asked); err != nil {
		return err
	}
	for _, t := range asked {
		if slices.ContainsFunc(q.caller.transitive, func(o tag) bool { return strings.EqualFold(o.Key, t.Key) }) {
			return apiErrf(400, "InvalidParameterValue", "One of the specified transitive tag keys can't be set because it conflicts with "+
				"a transitive tag key from the calling session.")
		}
	}
	s.tags = withTags(q.caller.transitive, asked)
	s.transitive = slices.Clone(q.caller.transitive)
	for _, key := range q.form.list("TransitiveTagKeys") {
		i := slices.IndexFunc(asked, func(t tag) bool { return strings.EqualFold(t.Key, key) })
		if i < 0 {
			return apiErr(400, "ValidationError", "The specified transitive tag key must be included in the requested tags.")
		}
		s.transitive = append(s.transitive, asked[i])
	}
	return nil
}

// actions returns what the assumer needs: one action more for a session with tags. It adds the tags to the context.
func (s sessionRequest) actions(context conditionContext) []string {
	if len(s.tags) == 0 {
		return []string{"sts:AssumeRole"}
	}
	context.requestTags(s.tags)
	return []string{"sts:AssumeRole", "sts:TagSession"}
}

// PodIdentity describes a pod as EKS Pod Identity does for STS.
type PodIdentity struct{ ClusterARN, Namespace, ServiceAccount, Pod string }

// PodIdentitySession assumes a role as the EKS Auth service does for a pod: as pods.eks.amazonaws.com, with tags
// that are transitive.
func (a *Account) PodIdentitySession(roleARN string, pod PodIdentity) (Credentials, error) {
	c := a.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	cluster := pod.ClusterARN[strings.LastIndexByte(pod.ClusterARN, '/')+1:]
	tags := []tag{
		{"eks-cluster-arn", pod.ClusterARN}, {"eks-cluster-name", cluster}, {"kubernetes-namespace", pod.Namespace},
		{"kubernetes-service-account", pod.ServiceAccount}, {"kubernetes-pod-name", pod.Pod}, {"kubernetes-pod-uid", randomUUID()},
	}
	request := sessionRequest{
		account: a, roleARN: roleARN, name: "eks-" + cluster + "-" + pod.Pod, duration: maxChained, tags: tags, transitive: tags,
	}
	role := request.role(c.now().Add(-c.propagation))
	context := conditionContext{}
	context.set("aws:SourceAccount", a.ID)
	context.set("aws:SourceArn", pod.ClusterARN)
	for _, action := range request.actions(context) {
		verdict := silent
		if role != nil {
			verdict, _ = evaluateTrust(role.trust, assumer{kind: "Service", names: []string{"pods.eks.amazonaws.com"}}, action, context)
		}
		if verdict != allow {
			return Credentials{}, apiErrf(403, "AccessDeniedException", "Unauthorized Exception! EKS does not have permissions to assume the "+
				"associated role: %s on %s", action, roleARN)
		}
	}
	_, session := c.issue(request, role)
	return session.Credentials, nil
}

// assumer returns the names by which trust documents can name the caller.
func (c *credential) assumer() assumer {
	who := assumer{kind: "AWS", account: c.account.arn("iam", "", "root")}
	if c.user != nil {
		who.names = []string{c.user.id}
	} else {
		who.names = []string{c.roleID, c.arn()}
	}
	return who
}

// allowAssuming returns the permission that a trust document gives to a principal that it names.
func allowAssuming(roleARN string) document {
	return document{Statement: statements{{Effect: "Allow", Action: values{"sts:AssumeRole", "sts:TagSession"}, Resource: values{roleARN}}}}
}

func getCallerIdentity(q *queryCall) (any, error) {
	return struct {
		ARN     string `xml:"Arn"`
		UserID  string `xml:"UserId"`
		Account string
	}{q.caller.arn(), q.caller.userID(), q.caller.account.ID}, nil
}
