-- A music store: mixed-case names that need quotes, reserved words, no modification stamps, times without a zone.
create table "Artist" ("ArtistId" int primary key, "Name" varchar(120));
create table "Album" (
    "AlbumId" int primary key, "Title" varchar(160) not null, "ArtistId" int not null references "Artist"
);
create table "MediaType" ("MediaTypeId" int primary key, "Name" varchar(120));
create table "Track" (
    "TrackId" int primary key,
    "Name" varchar(200) not null,
    "AlbumId" int references "Album",
    "MediaTypeId" int not null references "MediaType",
    "Milliseconds" int not null,
    "UnitPrice" numeric(10, 2) not null,
    "Order" int
);
create table "Employee" (
    "EmployeeId" int primary key,
    "LastName" varchar(20) not null,
    "FirstName" varchar(20) not null,
    "ReportsTo" int references "Employee",
    "BirthDate" timestamp,
    "HireDate" timestamp,
    "Email" varchar(60)
);
create table "Customer" (
    "CustomerId" int primary key,
    "FirstName" varchar(40) not null,
    "LastName" varchar(20) not null,
    "Email" varchar(60) not null,
    "SupportRepId" int references "Employee"
);
create table "Invoice" (
    "InvoiceId" int primary key,
    "CustomerId" int not null references "Customer",
    "InvoiceDate" timestamp not null,
    "BillingPostalCode" varchar(10),
    "Total" numeric(10, 2) not null
);
create table "InvoiceLine" (
    "InvoiceLineId" int primary key,
    "InvoiceId" int not null references "Invoice",
    "TrackId" int not null references "Track",
    "UnitPrice" numeric(10, 2) not null,
    "Quantity" int not null
);
create table "Playlist" ("PlaylistId" int primary key, "Name" varchar(120));
create table "PlaylistTrack" (
    "PlaylistId" int references "Playlist", "TrackId" int references "Track", primary key ("PlaylistId", "TrackId")
);
create table "Some Notes" ("Note #" int, "select" text);

insert into "Artist" select n, 'Ärtist ' || n from generate_series(1, 50) n;
insert into "Album" select n, 'Album ' || n, 1 + n % 50 from generate_series(1, 100) n;
insert into "MediaType" values (1, 'MPEG'), (2, null);
insert into "Track" select n, 'Track ' || n, 1 + n % 100, 1 + n % 2, n * 1000, 0.99, n from generate_series(1, 500) n;
insert into "Employee"
select n, 'Last', 'First', nullif(n - 1, 0), '1970-01-01', '2020-03-29 02:30', 'e@example.com' from generate_series(1, 8) n;
insert into "Customer" select n, 'First', 'Last', 'c' || n || '@example.com', 1 + n % 8 from generate_series(1, 60) n;
insert into "Invoice" select n, 1 + n % 60, '2025-01-01'::timestamp + n * interval '7 hours', '10115', n % 9
from generate_series(1, 400) n;
insert into "InvoiceLine" select n, 1 + n % 400, 1 + n % 500, 0.99, 1 from generate_series(1, 2000) n;
insert into "Playlist" select n, null from generate_series(1, 5) n;
insert into "PlaylistTrack" select 1 + n % 5, n from generate_series(1, 500) n;
insert into "Some Notes" values (1, 'a'), (1, 'a'), (null, null);
