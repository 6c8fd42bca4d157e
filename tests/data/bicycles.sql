-- A bicycle maker: several schemas with tables of equal names, composite keys, xml, uuid, stamps with a default only.
create schema person;
create schema production;
create schema sales;
create schema hr;
create domain public."Name" as varchar(50);
create domain public."Flag" as boolean not null;

create table person.person (
    businessentityid int primary key,
    persontype char(2) not null check (persontype in ('SC', 'IN', 'EM')),
    firstname public."Name" not null,
    lastname public."Name" not null,
    demographics xml,
    rowguid uuid not null default gen_random_uuid(),
    modifieddate timestamp not null default now()
);
create table person.emailaddress (
    businessentityid int not null references person.person,
    emailaddressid int not null,
    emailaddress varchar(50),
    modifieddate timestamp not null default now(),
    primary key (businessentityid, emailaddressid)
);
create table person.document (id int primary key, title text, modifieddate timestamp not null default now());
create table production.document (
    documentnode varchar(20) primary key, title text, document bytea, modifieddate timestamp not null default now()
);
create table production.product (
    productid int primary key,
    name public."Name" not null,
    makeflag public."Flag" default true,
    listprice numeric not null check (listprice >= 0),
    size varchar(5),
    class char(2) check (upper(class) in ('L', 'M', 'H') or class is null),
    sellstartdate timestamp not null,
    rowguid uuid not null default gen_random_uuid(),
    modifieddate timestamp not null default now()
);
create table production.history (
    productid int not null references production.product,
    startdate timestamp not null,
    enddate timestamp,
    cost numeric not null,
    modifieddate timestamp not null default now(),
    primary key (productid, startdate)
);
create table hr.employee (
    businessentityid int primary key references person.person,
    nationalidnumber varchar(15) not null,
    birthdate date not null,
    salariedflag public."Flag" default true,
    modifieddate timestamp not null default now()
);
create table hr.history (
    businessentityid int not null references hr.employee,
    startdate date not null,
    department text not null,
    primary key (businessentityid, startdate)
);
create table sales.salesorderheader (
    salesorderid int primary key,
    orderdate timestamp not null default now(),
    customerid int not null references person.person,
    subtotal numeric not null,
    modifieddate timestamp not null default now()
);
create table sales.salesorderdetail (
    salesorderid int not null references sales.salesorderheader,
    salesorderdetailid int not null,
    productid int not null references production.product,
    orderqty smallint not null,
    unitprice numeric not null,
    modifieddate timestamp not null default now(),
    primary key (salesorderid, salesorderdetailid)
);
create view sales.vsales as select salesorderid, subtotal from sales.salesorderheader;

-- a server that was built without libxml has the type xml and no values of it
insert into person.person (businessentityid, persontype, firstname, lastname)
select n, (array['SC', 'IN', 'EM'])[1 + n % 3], 'First', 'Last' from generate_series(1, 200) n;
insert into person.emailaddress select n, 1, 'p' || n || '@example.com' from generate_series(1, 200) n;
insert into person.document select n, 'Title ' || n from generate_series(1, 20) n;
insert into production.document select '/' || n || '/', 'Title', '\xff00' from generate_series(1, 20) n;
insert into production.product (productid, name, listprice, size, class, sellstartdate)
select n, 'Product ' || n, n, 'M', case when n % 2 = 0 then 'L ' end, '2020-01-01' from generate_series(1, 150) n;
insert into production.history select n, '2020-01-01', null, 1.5 from generate_series(1, 150) n;
insert into hr.employee select n, 'X' || n, '1980-01-01' from generate_series(1, 30) n;
insert into hr.history select n, '2020-01-01', 'Wheels' from generate_series(1, 30) n;
insert into sales.salesorderheader select n, '2025-01-01', 1 + n % 200, n from generate_series(1, 500) n;
insert into sales.salesorderdetail select 1 + n % 500, n, 1 + n % 150, 1, 9.99 from generate_series(1, 2000) n;
