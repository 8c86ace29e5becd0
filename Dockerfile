# The product's image, distroless in the literal sense: one static binary, the
# certificate authorities, and a user without a name. No shell, no root. The
# module dev/ (with the Temporal server) is not part of it, hence GOWORK=off.
FROM golang:1.26 AS build
WORKDIR /src
ENV CGO_ENABLED=0 GOWORK=off GOFLAGS=-trimpath
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN go build -ldflags="-s -w" -o /out/aftersend ./cmd/aftersend

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/aftersend /usr/local/bin/aftersend
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/aftersend"]
CMD ["serve"]
