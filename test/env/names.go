package env

// Audience is the audience of the tokens that the policy's role accepts.
const Audience = "sts.amazonaws.com"

// RoleARN is the ARN of the role that sync creates for the policy's destination.
const RoleARN = "arn:aws:iam::" + AccountID + ":role/ampbridge/" + ClusterName +
	"/ampbridge." + ClusterName + ".central"
