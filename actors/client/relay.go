package client

import "pando.dev/pando/partition"

// One node hands a client's read to another, and the answer back, in the frames in
// which clients send them.

// AppendRead encodes a read behind dst.
func AppendRead(dst []byte, r *Request) []byte { return appendRequest(dst, r) }

// ParseRead decodes what AppendRead made. The read aliases b.
func ParseRead(b []byte) (*Request, error) {
	r := new(Request)
	if err := parseRequest(b, r); err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	if r.Op != OpRead {
		return nil, partition.Errorf(partition.CodeInvalid, "a read that is none")
	}
	return r, nil
}

// AppendAnswer encodes the answer to a read behind dst.
func AppendAnswer(dst []byte, r *Response) []byte { return appendResponse(dst, r) }

// ParseAnswer decodes what AppendAnswer made. The answer aliases b.
func ParseAnswer(b []byte) (*Response, error) {
	r := new(Response)
	if err := parseResponse(b, r); err != nil {
		return nil, err
	}
	return r, nil
}
