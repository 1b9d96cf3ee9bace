package doctor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
)

// marker is the name of the series that doctor writes.
const marker = "ampbridge_doctor"

// query queries the workspace for a constant, which costs nothing. remoteWrite is the
// workspace's address for writes.
func query(
	ctx context.Context,
	client *http.Client,
	credentials aws.CredentialsProvider,
	region, remoteWrite string,
) *check.Refusal {
	base := strings.TrimSuffix(remoteWrite, "/api/v1/remote_write")
	at := base + "/api/v1/query?" + url.Values{"query": {"vector(1)"}}.Encode()
	return signedCall(ctx, client, credentials, region, http.MethodGet, at, nil, nil)
}

// ampClient returns an HTTP client with the proxy and the CAs of the destination.
func ampClient(proxyURL, caBundle string) (*http.Client, *check.Refusal) {
	client, err := httpClient(proxyURL, caBundle)
	if err != nil {
		return nil, &check.Refusal{Text: "remoteWrite: " + err.Error()}
	}
	return client, nil
}

// write sends one sample, as Prometheus does.
func write(
	ctx context.Context,
	credentials aws.CredentialsProvider,
	d policy.Destination,
	labels map[string]string,
	at time.Time,
) *check.Refusal {
	client, refused := ampClient(d.RemoteWrite.ProxyURL, d.RemoteWrite.CABundle)
	if refused != nil {
		return refused
	}
	return writeTo(ctx, client, credentials, d.Workspace.Region, d.URL(), labels, at)
}

// queryOf queries the workspace of a destination.
func queryOf(ctx context.Context, credentials aws.CredentialsProvider, d policy.Destination) *check.Refusal {
	client, refused := ampClient(d.RemoteWrite.ProxyURL, d.RemoteWrite.CABundle)
	if refused != nil {
		return refused
	}
	return query(ctx, client, credentials, d.Workspace.Region, d.URL())
}

func writeTo(
	ctx context.Context,
	client *http.Client,
	credentials aws.CredentialsProvider,
	region, url string,
	labels map[string]string,
	at time.Time,
) *check.Refusal {
	header := http.Header{
		"Content-Type": {"application/x-protobuf"}, "Content-Encoding": {"snappy"},
		"X-Prometheus-Remote-Write-Version": {"0.1.0"},
	}
	return signedCall(ctx, client, credentials, region, http.MethodPost, url, header, literalSnappy(oneSample(labels, at)))
}

// signedCall returns nil if AMP answers with success.
func signedCall(
	ctx context.Context,
	client *http.Client,
	credentials aws.CredentialsProvider,
	region, method, at string,
	header http.Header,
	body []byte,
) *check.Refusal {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	noAnswer := func(err error) *check.Refusal {
		for errors.Unwrap(err) != nil {
			err = errors.Unwrap(err)
		}
		return &check.Refusal{Text: noAnswerText + err.Error()}
	}
	keys, err := credentials.Retrieve(ctx)
	if err != nil {
		return noAnswer(err)
	}
	request, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader(body))
	if err != nil {
		return noAnswer(err)
	}
	maps.Copy(request.Header, header)
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, keys, request, hex.EncodeToString(sum[:]), "aps", region, time.Now()); err != nil {
		return noAnswer(err)
	}
	response, err := client.Do(request)
	if err != nil {
		return noAnswer(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode/100 == 2 {
		return nil
	}
	const enough = 4 << 10
	text, _ := io.ReadAll(io.LimitReader(response.Body, enough))
	var answer struct{ Message string }
	if json.Unmarshal(text, &answer) != nil || answer.Message == "" {
		answer.Message = strings.TrimSpace(string(text))
	}
	code, _, _ := strings.Cut(response.Header.Get("X-Amzn-Errortype"), ":")
	if code == "" {
		code = response.Status
	}
	return &check.Refusal{Code: code, Text: answer.Message, Status: response.StatusCode}
}

// oneSample is a WriteRequest with the value 1 for one series
// (https://github.com/prometheus/prometheus/blob/main/prompb/remote.proto).
func oneSample(labels map[string]string, at time.Time) []byte {
	field := func(b []byte, number protowire.Number, message []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), message)
	}
	names := make([]string, 0, len(labels))
	for name := range labels {
		names = append(names, name)
	}
	slices.Sort(names)
	var series []byte
	for _, name := range names {
		series = field(series, 1, field(field(nil, 1, []byte(name)), 2, []byte(labels[name])))
	}
	sample := protowire.AppendFixed64(protowire.AppendTag(nil, 1, protowire.Fixed64Type), math.Float64bits(1))
	sample = protowire.AppendVarint(protowire.AppendTag(sample, 2, protowire.VarintType), uint64(at.UnixMilli()))
	return field(nil, 1, field(series, 2, sample))
}

// literalSnappy is the block format without any compression: the length, and one
// literal (https://github.com/google/snappy/blob/main/format_description.txt).
// data has 1 byte to 64 KiB.
func literalSnappy(data []byte) []byte {
	b := binary.AppendUvarint(nil, uint64(len(data)))
	const twoBytesOfLength = 61 << 2
	b = append(b, twoBytesOfLength)
	b = append(b, binary.LittleEndian.AppendUint64(nil, uint64(len(data))-1)[:2]...)
	return append(b, data...)
}
