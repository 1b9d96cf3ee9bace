# Written by ampbridge plan -o terraform for cluster dev-aks, account 444455556666: change the policy and write it again.
# Docs: docs/guides/terraform.md of ampbridge.

terraform {
  required_version = ">= 1.2"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.81"
    }
  }
}

data "aws_caller_identity" "current" {
  lifecycle {
    postcondition {
      condition     = self.account_id == "444455556666"
      error_message = "This configuration is for account 444455556666: use credentials of that account."
    }
  }
}

# The cluster's issuer: AWS accepts its tokens for this audience.
resource "aws_iam_openid_connect_provider" "cluster" {
  url = "https://westeurope.oic.prod-aks.azure.com/11111111-2222-3333-4444-555555555555/66666666-7777-8888-9999-000000000000/"
  client_id_list = [
    "sts.amazonaws.com",
  ]
  tags = {
    "ampbridge.io/cluster"    = "dev-aks"
    "ampbridge.io/managed-by" = "terraform"
    "ampbridge.io/owner"      = "2f7f23a8e04792ba10f759fcfbdaffbd"
  }
}

# Destination elsewhere: exactly these service accounts may assume its role.
resource "aws_iam_role" "elsewhere" {
  name                 = "ampbridge.dev-aks.elsewhere"
  path                 = "/ampbridge/dev-aks/"
  description          = "Prometheus of cluster dev-aks writes to ws-0003; kept by ampbridge"
  max_session_duration = 21600
  permissions_boundary = "arn:aws-us-gov:iam::444455556666:policy/ampbridge/boundary"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect = "Allow"
        Principal = {
          Federated = aws_iam_openid_connect_provider.cluster.arn
        }
        Action = "sts:AssumeRoleWithWebIdentity"
        Condition = {
          StringEquals = {
            "westeurope.oic.prod-aks.azure.com/11111111-2222-3333-4444-555555555555/66666666-7777-8888-9999-000000000000/:aud" = "sts.amazonaws.com"
            "westeurope.oic.prod-aks.azure.com/11111111-2222-3333-4444-555555555555/66666666-7777-8888-9999-000000000000/:sub" = [
              "system:serviceaccount:monitoring:prometheus",
              "system:serviceaccount:team-a:a-prometheus",
            ]
          }
        }
      },
    ]
  })
  tags = {
    "ampbridge.io/cluster"     = "dev-aks"
    "ampbridge.io/destination" = "elsewhere"
    "ampbridge.io/managed-by"  = "terraform"
    "ampbridge.io/owner"       = "2f7f23a8e04792ba10f759fcfbdaffbd"
  }
}

resource "aws_iam_role_policy" "elsewhere" {
  name = "ampbridge"
  role = aws_iam_role.elsewhere.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect = "Allow"
        Action = "aps:RemoteWrite"
        Resource = [
          "arn:aws-us-gov:aps:us-gov-west-1:444455556666:workspace/ws-0003",
        ]
      },
    ]
  })
}
