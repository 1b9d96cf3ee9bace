package awstest

import (
	"regexp"
	"strings"
	"time"
)

// stsOperations are the signed calls that STS takes.
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

// sessionRequest is what both ways to assume a role have in common.
type sessionRequest struct {
	account  *Account // the role's, nil where the double has none of that ID
	roleARN  string
	name     string
	duration int // seconds
	policy   *document
	packed   *int // percent
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

// role is the role that STS sees under the ARN: changes reach it with a delay.
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

// issue hands out the credentials of a session.
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
	}
	c.credentials[session.AccessKeyID] = session
	return sessionResult{
		Credentials:      credentialsXML{session.AccessKeyID, session.SecretAccessKey, session.SessionToken, iso8601(session.expires)},
		AssumedRoleUser:  assumedRoleXML{session.arn(), session.userID()},
		PackedPolicySize: s.packed,
	}, session
}

// assumeRoleWithWebIdentity is not signed: the token is the proof. It takes the lock
// only around the account's state, so that a slow issuer holds nobody else up.
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

// assumeRole needs both sides: the role's trust, and the caller's permission. Only a trust document
// that names a principal of its own account itself makes up for the latter.
func assumeRole(q *queryCall) (any, error) {
	c := q.cloud
	request, err := q.sessionRequest()
	if err != nil {
		return nil, err
	}
	refused := apiErrf(
		403,
		"AccessDenied",
		"User: %s is not authorized to perform: sts:AssumeRole on resource: %s",
		q.caller.arn(),
		request.roleARN,
	)
	role := request.role(c.now().Add(-c.propagation))
	if role == nil {
		return nil, refused
	}
	context := c.contextOf(q.caller)
	context.set("sts:RoleSessionName", request.name)
	if id := q.form.Get("ExternalId"); id != "" {
		context.set("sts:ExternalId", id)
	}
	verdict, named := evaluateTrust(role.trust, q.caller.assumer(), "sts:AssumeRole", context)
	if verdict != allow {
		return nil, refused
	}
	own := c.permissionsOf(q.caller)
	if named && q.caller.account == request.account {
		own.identity = append(own.identity, allowAssuming(role.arn))
	}
	if ok, _ := own.decide(access{"sts:AssumeRole", role.arn, context}); !ok {
		return nil, refused
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

// assumer is the caller as trust documents may name it.
func (c *credential) assumer() assumer {
	who := assumer{kind: "AWS", account: c.account.arn("iam", "", "root")}
	if c.user != nil {
		who.names = []string{c.user.id}
	} else {
		who.names = []string{c.roleID, c.arn()}
	}
	return who
}

// allowAssuming is the permission that a trust document gives to a principal it names.
func allowAssuming(roleARN string) document {
	return document{Statement: statements{{Effect: "Allow", Action: values{"sts:AssumeRole"}, Resource: values{roleARN}}}}
}

func getCallerIdentity(q *queryCall) (any, error) {
	return struct {
		ARN     string `xml:"Arn"`
		UserID  string `xml:"UserId"`
		Account string
	}{q.caller.arn(), q.caller.userID(), q.caller.account.ID}, nil
}
