package awstest_test

import (
	"context"
	"fmt"
	"log"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/go-jose/go-jose/v4"

	"github.com/ampbridge/ampbridge/test/awstest"
)

// A subject of a cluster is let into a role, and another one is not.
func Example() {
	ctx := context.Background()
	cloud, err := awstest.New(ctx, awstest.Options{})
	if err != nil {
		log.Fatal(err)
	}
	account := cloud.Account("111122223333")
	signer := awstest.NewSigner("https://issuer.example/dev", jose.ES256)
	if _, err := cloud.RegisterIssuer(signer.Issuer, signer, awstest.PublicCA); err != nil {
		log.Fatal(err)
	}

	config := cloud.Config(account.AdminCredentials(), "eu-west-1")
	identities := iam.NewFromConfig(config)
	provider, err := identities.CreateOpenIDConnectProvider(ctx, &iam.CreateOpenIDConnectProviderInput{
		Url: aws.String(signer.Issuer), ClientIDList: []string{"sts.amazonaws.com"},
	})
	if err != nil {
		log.Fatal(err)
	}
	role, err := identities.CreateRole(ctx, &iam.CreateRoleInput{
		RoleName: aws.String("writer"),
		AssumeRolePolicyDocument: aws.String(`{"Version": "2012-10-17", "Statement": {
			"Effect": "Allow", "Principal": {"Federated": "` + *provider.OpenIDConnectProviderArn + `"},
			"Action": "sts:AssumeRoleWithWebIdentity",
			"Condition": {"StringEquals": {"issuer.example/dev:sub": "system:serviceaccount:monitoring:prometheus"}}}}`),
	})
	if err != nil {
		log.Fatal(err)
	}

	tokens := sts.NewFromConfig(config)
	for _, subject := range []string{"system:serviceaccount:monitoring:prometheus", "system:serviceaccount:default:default"} {
		_, err := tokens.AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{
			RoleArn: role.Role.Arn, RoleSessionName: aws.String("example"),
			WebIdentityToken: aws.String(signer.Token(subject, "sts.amazonaws.com")),
		})
		fmt.Println(subject, err == nil)
	}
	for _, call := range cloud.Calls() {
		fmt.Println(call.Service, call.Action, call.Status)
	}
	if err := cloud.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// system:serviceaccount:monitoring:prometheus true
	// system:serviceaccount:default:default false
	// iam CreateOpenIDConnectProvider 200
	// iam CreateRole 200
	// sts AssumeRoleWithWebIdentity 200
	// sts AssumeRoleWithWebIdentity 403
}
