# Written by ampbridge plan -o terraform for cluster dev-aks, account 111122223333: change the policy and write it again.
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
      condition     = self.account_id == "111122223333"
      error_message = "This configuration is for account 111122223333: use credentials of that account."
    }
  }
}

# Destination central: exactly these service accounts may assume its role.
resource "aws_iam_role" "central" {
  name                 = "ampbridge.dev-aks.central"
  path                 = "/ampbridge/dev-aks/"
  description          = "Prometheus of cluster dev-aks writes to ws-0001; kept by ampbridge"
  max_session_duration = 21600
  permissions_boundary = "arn:aws:iam::111122223333:policy/ampbridge/boundary"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect = "Allow"
        Principal = {
          Federated = "arn:aws:iam::111122223333:oidc-provider/westeurope.oic.prod-aks.azure.com/11111111-2222-3333-4444-555555555555/66666666-7777-8888-9999-000000000000/"
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
    "ampbridge.io/destination" = "central"
    "ampbridge.io/managed-by"  = "terraform"
    "ampbridge.io/owner"       = "2f7f23a8e04792ba10f759fcfbdaffbd"
  }
}

resource "aws_iam_role_policy" "central" {
  name = "ampbridge"
  role = aws_iam_role.central.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect = "Allow"
        Action = "aps:RemoteWrite"
        Resource = [
          "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001",
        ]
      },
    ]
  })
}

# Destination 2nd-site: exactly these service accounts may assume its role.
resource "aws_iam_role" "_2nd_site" {
  name                 = "ampbridge.dev-aks.2nd-site"
  path                 = "/ampbridge/dev-aks/"
  description          = "Prometheus of cluster dev-aks writes to ws-0002; kept by ampbridge"
  max_session_duration = 21600
  permissions_boundary = "arn:aws:iam::111122223333:policy/ampbridge/boundary"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect = "Allow"
        Principal = {
          Federated = "arn:aws:iam::111122223333:oidc-provider/westeurope.oic.prod-aks.azure.com/11111111-2222-3333-4444-555555555555/66666666-7777-8888-9999-000000000000/"
        }
        Action = "sts:AssumeRoleWithWebIdentity"
        Condition = {
          StringEquals = {
            "westeurope.oic.prod-aks.azure.com/11111111-2222-3333-4444-555555555555/66666666-7777-8888-9999-000000000000/:aud" = "sts.amazonaws.com"
            "westeurope.oic.prod-aks.azure.com/11111111-2222-3333-4444-555555555555/66666666-7777-8888-9999-000000000000/:sub" = [
              "system:serviceaccount:monitoring:prometheus",
            ]
          }
        }
      },
    ]
  })
  tags = {
    "ampbridge.io/cluster"     = "dev-aks"
    "ampbridge.io/destination" = "2nd-site"
    "ampbridge.io/managed-by"  = "terraform"
    "ampbridge.io/owner"       = "2f7f23a8e04792ba10f759fcfbdaffbd"
  }
}

resource "aws_iam_role_policy" "_2nd_site" {
  name = "ampbridge"
  role = aws_iam_role._2nd_site.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect = "Allow"
        Action = "sts:AssumeRole"
        Resource = [
          "arn:aws:iam::999988887777:role/partner-writer",
        ]
      },
    ]
  })
}
