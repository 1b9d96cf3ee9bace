// Loads a configuration with Prometheus 2.8's own loader, for the test in ../..
module github.com/ampbridge/ampbridge/test/promload/versions/2.8

go 1.26.0

require github.com/prometheus/prometheus v0.0.0-20190328180107-4d60eb36dcbe

require (
	cloud.google.com/go v0.26.0 // indirect
	contrib.go.opencensus.io/exporter/ocagent v0.4.1 // indirect
	github.com/Azure/azure-sdk-for-go v23.2.0+incompatible // indirect
	github.com/Azure/go-autorest v11.2.8+incompatible // indirect
	github.com/aws/aws-sdk-go v0.0.0-20180507225419-00862f899353 // indirect
	github.com/beorn7/perks v0.0.0-20180321164747-3a771d992973 // indirect
	github.com/census-instrumentation/opencensus-proto v0.1.0 // indirect
	github.com/cespare/xxhash v1.1.0 // indirect
	github.com/davecgh/go-spew v1.1.1 // indirect
	github.com/dgrijalva/jwt-go v0.0.0-20161101193935-9ed569b5d1ac // indirect
	github.com/go-ini/ini v1.21.1 // indirect
	github.com/go-kit/kit v0.8.0 // indirect
	github.com/go-logfmt/logfmt v0.4.0 // indirect
	github.com/gogo/protobuf v1.2.0 // indirect
	github.com/golang/protobuf v1.2.0 // indirect
	github.com/google/btree v0.0.0-20180124185431-e89373fe6b4a // indirect
	github.com/google/gofuzz v0.0.0-20150304233714-bbcb9da2d746 // indirect
	github.com/googleapis/gnostic v0.0.0-20180520015035-48a0ecefe2e4 // indirect
	github.com/gophercloud/gophercloud v0.0.0-20181206160319-9d88c34913a9 // indirect
	github.com/gregjones/httpcache v0.0.0-20180305231024-9cad4c3443a7 // indirect
	github.com/hashicorp/consul v0.0.0-20180615161029-bed22a81e9fd // indirect
	github.com/hashicorp/go-cleanhttp v0.0.0-20160407174126-ad28ea4487f0 // indirect
	github.com/hashicorp/go-rootcerts v0.0.0-20160503143440-6bb64b370b90 // indirect
	github.com/hashicorp/golang-lru v0.5.0 // indirect
	github.com/hashicorp/serf v0.0.0-20161007004122-1d4fa605f6ff // indirect
	github.com/jmespath/go-jmespath v0.0.0-20160803190731-bd40a432e4c7 // indirect
	github.com/json-iterator/go v0.0.0-20180612202835-f2b4162afba3 // indirect
	github.com/kr/logfmt v0.0.0-20140226030751-b84e30acd515 // indirect
	github.com/matttproud/golang_protobuf_extensions v1.0.1 // indirect
	github.com/miekg/dns v1.1.4 // indirect
	github.com/mitchellh/go-homedir v0.0.0-20180523094522-3864e76763d9 // indirect
	github.com/modern-go/concurrent v0.0.0-20180306012644-bacd9c7ef1dd // indirect
	github.com/modern-go/reflect2 v0.0.0-20180701023420-4b7aa43c6742 // indirect
	github.com/mwitkow/go-conntrack v0.0.0-20161129095857-cc309e4a2223 // indirect
	github.com/peterbourgon/diskv v0.0.0-20180312054125-0646ccaebea1 // indirect
	github.com/prometheus/client_golang v0.9.1 // indirect
	github.com/prometheus/client_model v0.0.0-20180712105110-5c3871d89910 // indirect
	github.com/prometheus/common v0.0.0-20181119215939-b36ad289a3ea // indirect
	github.com/prometheus/procfs v0.0.0-20181005140218-185b4288413d // indirect
	github.com/samuel/go-zookeeper v0.0.0-20161028232340-1d7be4effb13 // indirect
	go.opencensus.io v0.18.1-0.20181204023538-aab39bd6a98b // indirect
	golang.org/x/crypto v0.0.0-20180621125126-a49355c7e3f8 // indirect
	golang.org/x/net v0.0.0-20180906233101-161cd47e91fd // indirect
	golang.org/x/oauth2 v0.0.0-20180821212333-d2e6202438be // indirect
	golang.org/x/sync v0.0.0-20181108010431-42b317875d0f // indirect
	golang.org/x/sys v0.0.0-20181107165924-66b7b1311ac8 // indirect
	golang.org/x/text v0.3.0 // indirect
	golang.org/x/time v0.0.0-20170424234030-8be79e1e0910 // indirect
	google.golang.org/api v0.0.0-20180910000450-7ca32eb868bf // indirect
	google.golang.org/appengine v1.1.0 // indirect
	google.golang.org/genproto v0.0.0-20180831171423-11092d34479b // indirect
	google.golang.org/grpc v1.17.0 // indirect
	gopkg.in/fsnotify/fsnotify.v1 v1.3.0 // indirect
	gopkg.in/inf.v0 v0.9.0 // indirect
	gopkg.in/yaml.v2 v2.2.1 // indirect
	k8s.io/api v0.0.0-20181213150558-05914d821849 // indirect
	k8s.io/apimachinery v0.0.0-20181127025237-2b1284ed4c93 // indirect
	k8s.io/client-go v2.0.0-alpha.0.0.20181121191925-a47917edff34+incompatible // indirect
	k8s.io/klog v0.1.0 // indirect
	sigs.k8s.io/yaml v1.1.0 // indirect
)

// The version that Prometheus 2.8 requires is not on the module proxy; this is its release.
replace k8s.io/client-go => k8s.io/client-go v10.0.0+incompatible
