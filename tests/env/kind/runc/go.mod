module shortener.test/runc

go 1.24
