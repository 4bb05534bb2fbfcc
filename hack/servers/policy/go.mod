module mintmark.dev/policy

go 1.26
