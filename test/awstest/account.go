package awstest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Account is one AWS account with its IAM and its workspaces.
type Account struct {
	// ID is the account's number, 12 digits.
	ID string
	// Partition is for example aws, aws-cn or aws-us-gov.
	Partition string

	cloud     *Cloud
	admin     Credentials
	quotas    Quotas
	users     map[string]*user
	roles     entities[role]     // by lower-case name, because names are unique whatever their case and path
	providers entities[provider] // by URL without https://
	policies  entities[managedPolicy]
	made      map[string]*Workspace // by region and client token
	// control is the organisation's service control policy, in addition to FullAWSAccess; nil if there is none.
	control *document
}

// Quotas are an account's limits. They have AWS's defaults unless SetQuotas changed them.
type Quotas struct {
	TrustPolicy    int // characters of a role's trust policy
	InlinePolicies int // characters of a role's inline policies together, without white space
	ManagedPolicy  int // characters of a managed policy, without white space
	Roles          int // per account
	Providers      int // OIDC providers per account
	ClientIDs      int // per OIDC provider
	Tags           int // per role or provider
	Workspaces     int // of AMP, per region
}

// Credentials are access keys, plus a session token if they are temporary.
// They implement [aws.CredentialsProvider].
type Credentials struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string
}

// Retrieve implements [aws.CredentialsProvider].
func (c Credentials) Retrieve(context.Context) (aws.Credentials, error) {
	return aws.Credentials{
		AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken,
		Source: "awstest",
	}, nil
}

// Environ returns the environment ("NAME=value") that passes the credentials to another
// process.
func (c Credentials) Environ() []string {
	env := []string{"AWS_ACCESS_KEY_ID=" + c.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + c.SecretAccessKey}
	if c.SessionToken != "" {
		env = append(env, "AWS_SESSION_TOKEN="+c.SessionToken)
	}
	return env
}

// String returns only the key's id, so that no secret is printed.
func (c Credentials) String() string { return c.AccessKeyID }

// credential is what the double knows about a pair of keys: its owner and its expiry.
type credential struct {
	Credentials
	account *Account
	expires time.Time // zero means never

	user *user // static keys

	roleName, roleID string // sessions
	roleARN          string
	sessionName      string
	sessionPolicy    *document
	sessionTags      []tag
	transitive       []tag // those that a chained session inherits
}

// arn returns the caller's name in AWS.
func (c *credential) arn() string {
	if c.user != nil {
		return c.user.arn
	}
	return fmt.Sprintf("arn:%s:sts::%s:assumed-role/%s/%s", c.account.Partition, c.account.ID, c.roleName, c.sessionName)
}

func (c *credential) userID() string {
	if c.user != nil {
		return c.user.id
	}
	return c.roleID + ":" + c.sessionName
}

type user struct {
	name, arn, id string
	key           string // access key ID
	policy        document
}

const administratorAccess = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`

func newAccount(c *Cloud, partition, id string) *Account {
	a := &Account{
		ID: id, Partition: partition, cloud: c,
		quotas: Quotas{
			TrustPolicy: 2048, InlinePolicies: 10240, ManagedPolicy: 6144,
			Roles: 1000, Providers: 100, ClientIDs: 100, Tags: 50, Workspaces: 25,
		},
		users:     map[string]*user{},
		roles:     entities[role]{},
		providers: entities[provider]{},
		policies:  entities[managedPolicy]{},
		made:      map[string]*Workspace{},
	}
	for name, text := range awsManagedPolicies {
		a.addAWSManaged(name, text)
	}
	policy, err := parseDocument(identityPolicy, administratorAccess)
	if err != nil {
		panic("the administrator's policy does not parse: " + err.Error())
	}
	a.admin = a.addUser("administrator", policy)
	return a
}

// AdminCredentials returns static keys of a user with all permissions in the account.
func (a *Account) AdminCredentials() Credentials { return a.admin }

// SetQuotas changes the account's limits.
func (a *Account) SetQuotas(change func(*Quotas)) {
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	change(&a.quotas)
}

// SetServiceControlPolicy sets an organisation's policy (JSON) for all that the account's users and roles do.
// AWS's FullAWSAccess stays, so that only denials have an effect. An empty policy removes it.
func (a *Account) SetServiceControlPolicy(policy string) error {
	var control *document
	if policy != "" {
		d, err := parseDocument(identityPolicy, policy)
		if err != nil {
			return err
		}
		control = &d
	}
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	a.control = control
	return nil
}

// PutUser creates a user whose permissions are exactly the policy (JSON), or
// gives an existing one that policy, and returns the user's static keys.
func (a *Account) PutUser(name, policy string) (Credentials, error) {
	document, err := parseDocument(identityPolicy, policy)
	if err != nil {
		return Credentials{}, err
	}
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	if u, ok := a.users[name]; ok {
		u.policy = document
		return a.cloud.credentials[u.key].Credentials, nil
	}
	return a.addUser(name, document), nil
}

// addUser adds a user. The caller holds the lock.
func (a *Account) addUser(name string, policy document) Credentials {
	keys := Credentials{AccessKeyID: "AKIA" + randomID(16), SecretAccessKey: randomSecret(30)}
	u := &user{
		name: name, arn: a.arn("iam", "", "user/"+name), id: "AIDA" + randomID(17),
		key: keys.AccessKeyID, policy: policy,
	}
	a.users[name] = u
	a.cloud.credentials[keys.AccessKeyID] = &credential{Credentials: keys, account: a, user: u}
	return keys
}

// arn returns the ARN of a resource of the account.
func (a *Account) arn(service, region, resource string) string {
	return fmt.Sprintf("arn:%s:%s:%s:%s:%s", a.Partition, service, region, a.ID, resource)
}

// ProviderARN returns the ARN of an OIDC provider for the issuer in the account.
func (a *Account) ProviderARN(issuer string) string {
	return a.arn("iam", "", "oidc-provider/"+strings.TrimPrefix(issuer, "https://"))
}

// randomID returns n characters as AWS uses them in its identifiers.
func randomID(n int) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	b := make([]byte, n)
	for i := range b {
		k, err := rand.Int(rand.Reader, big.NewInt(int64(len(letters))))
		if err != nil {
			panic(err) // cannot happen: crypto/rand never fails
		}
		b[i] = letters[k.Int64()]
	}
	return string(b)
}

// randomSecret returns n random bytes in base64.
func randomSecret(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return base64.StdEncoding.EncodeToString(b)
}

// randomUUID returns a version 4 UUID.
func randomUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
